stateservice::run { 'kernel':
  chart   => 'kernel-rollout',
  state   => 'rollout',
  command => '/usr/local/sbin/update-kernel && touch /var/lib/kernel-rollout.done',
  creates => '/var/lib/kernel-rollout.done',
}
