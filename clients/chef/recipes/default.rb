# Install statectl and its settings. Copy clients/statectl into this cookbook's files/.
cookbook_file '/usr/local/bin/statectl' do
  mode '0755'
end

file '/etc/statectl.conf' do
  content "STATECTL_URL=#{node['stateservice']['url']}\nSTATECTL_MACHINE=#{node['fqdn']}\n"
  mode '0644'
end
