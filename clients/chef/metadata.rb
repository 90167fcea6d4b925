name 'stateservice'
version '1.0.0'
chef_version '>= 15.3'
description 'Run a command when StateService allows it, and report how it ended'
