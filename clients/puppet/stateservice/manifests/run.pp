# @summary Runs a command when StateService allows it, and reports the result.
#
# @param chart          the chart to ask
# @param state          the state that the command is for
# @param command        the command to run, with sh
# @param creates        a file whose presence says that this machine has done the work
# @param on_unreachable what to do without an answer: stop, or go ahead
# @param statectl       the path of statectl
define stateservice::run (
  String $chart,
  String $state,
  String $command,
  Optional[String] $creates = undef,
  Enum['stop', 'go'] $on_unreachable = 'stop',
  String $statectl = '/usr/local/bin/statectl',
) {
  $which = shellquote($chart, $state, '--on-unreachable', $on_unreachable)
  $shell = shellquote('sh', '-c', $command)

  exec { "stateservice ${title}":
    command   => "${statectl} run ${which} -- ${shell}",
    onlyif    => "${statectl} can ${which}",
    creates   => $creates,
    provider  => shell,
    # A no between the question and the run is not a failure; the next Puppet run asks again. Do not set `tries`:
    # Puppet would run the command again, and statectl has already retried the requests.
    returns   => [0, 1],
  }
}
