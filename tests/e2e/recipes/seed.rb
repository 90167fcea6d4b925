execute 'change_machine' do
  cwd home_dir
  command "echo done >> worked && curl -K did.curl"
  only_if 'curl -K can.curl', :cwd => home_dir
end
