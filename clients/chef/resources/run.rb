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

action :run do
  which = [new_resource.chart, new_resource.state, '--on-unreachable', new_resource.on_unreachable].shelljoin
  execute new_resource.name do
    command "#{new_resource.statectl} run #{which} -- sh -c #{new_resource.command.shellescape}"
    only_if "#{new_resource.statectl} can #{which}"
    # A no between the guard and the run is not a failure; the next Chef run asks again. Do not set `retries`:
    # Chef would run the command again, and statectl has already retried the requests.
    returns [0, 1]
  end
end
