# @summary Runs a command when StateService allows it, and reports the result.
#
# @param chart          the chart to ask
# @param state          the state that the command is for
# @param command        what to run, by sh
# @param creates        a file that marks this machine as done
# @param on_unreachable if there is no answer: stop, or go ahead
# @param statectl       where statectl is
# @param timeout        seconds for the question, the command and the report together; 0 is no limit
define stateservice::run (
  String $chart,
  String $state,
  String $command,
  Optional[String] $creates = undef,
  Enum['stop', 'go'] $on_unreachable = 'stop',
  String $statectl = '/usr/local/bin/statectl',
  Integer[0] $timeout = 3600,
) {
  $which = shellquote($chart, $state, '--on-unreachable', $on_unreachable)
  $shell = shellquote('sh', '-c', $command)

  exec { "stateservice ${title}":
    command   => "${statectl} run ${which} -- ${shell}",
    # A no (1) and no answer (3) skip the resource until the next Puppet run. Wrong settings (2) do not: the command above
    # then fails with the reason, and does no work.
    onlyif    => "${statectl} can ${which}; case $? in 1|3) false;; esac",
    creates   => $creates,
    provider  => shell,
    timeout   => $timeout,
    # A no between the question and the run, or a command that ends with 75, is not a failure; the next Puppet run asks
    # again. No `tries`: they would run the command again, and statectl sends what is worth sending again itself.
    returns   => [0, 1],
  }
}
