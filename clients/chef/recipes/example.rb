# Update the kernel when the rollout allows it.
stateservice_run 'kernel' do
  chart 'kernel-rollout'
  state 'rollout'
  command '/usr/local/sbin/update-kernel'
  not_if { ::File.exist?('/var/lib/kernel-rollout.done') }
end
