# The same without statectl, as in the first StateService: three files for `curl -K`, see ../../curl. Chef cannot tell a no
# from an error here: curl exits 22 for both.
home_dir = '/etc/stateservice'

execute 'kernel' do
  cwd home_dir
  command 'if /usr/local/sbin/update-kernel; then curl -K did.curl; else curl -K failed.curl; exit 1; fi'
  only_if 'curl -K can.curl', :cwd => home_dir
end
