# @summary Runs a command when StateService allows it, and reports how it ended.
#
# @param chart          the chart to ask
# @param state          the state that the command is for
# @param command        what to run, by sh
# @param creates        a file whose presence says that this machine has been through
# @param on_unreachable what no answer means: stop, or go ahead
# @param statectl       where statectl is
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
    # A no between the question and the run is no failure; the next Puppet run asks again. No `tries`: they would run
    # the command again, and statectl has tried what is worth trying.
    returns   => [0, 1],
  }
}
