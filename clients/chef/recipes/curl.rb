# The same without statectl, as in the first StateService: two files for `curl -K`, see ../../curl. Chef cannot tell a no
# from an error here: curl exits 22 for both.
home_dir = '/etc/stateservice'

execute 'kernel' do
  cwd home_dir
  command '/usr/local/sbin/update-kernel && curl -K did.curl'
  only_if 'curl -K can.curl', :cwd => home_dir
end
