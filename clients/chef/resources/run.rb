# Run a command when StateService allows it, and report the result. See the README.
require 'shellwords'

provides :stateservice_run
resource_name :stateservice_run
unified_mode true

property :chart, String, required: true
property :state, String, required: true
property :command, String, required: true
property :on_unreachable, String, equal_to: %w(stop go), default: 'stop'
property :statectl, String, default: '/usr/local/bin/statectl'
# Seconds for the question, the command and the report together. After that Chef sends TERM, and KILL 3 s later: statectl
# passes TERM to the command, and reports the failure.
property :timeout, Integer, default: 3600

action :run do
  which = [new_resource.chart, new_resource.state, '--on-unreachable', new_resource.on_unreachable].shelljoin
  execute new_resource.name do
    command "#{new_resource.statectl} run #{which} -- sh -c #{new_resource.command.shellescape}"
    timeout new_resource.timeout
    # A no (1) and no answer (3) skip the resource until the next Chef run. Wrong settings (2) do not: the command below
    # then fails with the reason, and does no work.
    only_if "#{new_resource.statectl} can #{which}; case $? in 1 | 3) false ;; esac"
    # A no between the guard and the run, or a command that ends with 75, is not a failure; the next Chef run asks again.
    # No `retries`: they would run the command again, and statectl sends what is worth sending again itself.
    returns [0, 1]
  end
end
