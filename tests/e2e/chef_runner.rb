# Runs a recipe without chef-client: `execute` with its guards, retries and returns, and custom resources over it. What
# runs the guards and the commands is Chef's own library, mixlib-shellout, so that an exit status means what it means to Chef.
#
#   ruby chef_runner.rb RECIPE [RESOURCE_FILE ...]
require 'mixlib/shellout'

class Execute
  def initialize(name)
    @name = name
    @command = name
    @guards = []
    @retries = 0
    @retry_delay = 2
    @returns = [0]
    @timeout = 120
  end

  def cwd(path) = @cwd = path

  def command(text) = @command = text

  def retries(count) = @retries = count

  def retry_delay(seconds) = @retry_delay = seconds

  def timeout(seconds) = @timeout = seconds

  def returns(codes) = @returns = Array(codes)

  def only_if(command = nil, options = {}, &block) = @guards << [true, command, options, block]

  def not_if(command = nil, options = {}, &block) = @guards << [false, command, options, block]

  def run
    @guards.each do |wanted, command, options, block|
      next if holds?(command, options, block) == wanted

      puts "execute[#{@name}]: skipped due to #{wanted ? 'only_if' : 'not_if'}"
      return
    end
    attempt
    puts "execute[#{@name}]: run"
  end

  private

  def holds?(command, options, block)
    return block.call ? true : false if block

    !shell(command, options).error?
  end

  def attempt
    tries = 0
    begin
      shell(@command, {}, @returns).error!
    rescue Mixlib::ShellOut::ShellCommandFailed
      raise if (tries += 1) > @retries

      sleep @retry_delay
      retry
    end
  end

  def shell(command, options, returns = [0])
    Mixlib::ShellOut.new(command, cwd: options[:cwd] || @cwd, returns: returns, timeout: @timeout).run_command
  end
end

# A custom resource: what its file says, evaluated in a class, as Chef does.
class CustomResource
  class << self
    attr_reader :names, :body, :properties

    def provides(name) = (@names ||= []) << name

    def resource_name(name) = provides(name)

    def unified_mode(_on) = nil

    def property(name, _type, default: nil, **_checks)
      (@properties ||= {})[name] = default
      define_method(name) do |value = nil|
        value.nil? ? @values.fetch(name, self.class.properties[name]) : @values[name] = value
      end
    end

    def action(_name, &block) = @body = block
  end

  attr_reader :name

  def initialize(name)
    @name = name
    @values = {}
    @guards = []
  end

  def new_resource = self

  def only_if(&block) = @guards << [true, block]

  def not_if(&block) = @guards << [false, block]

  # Within an action's resources `new_resource` is the custom one, as in Chef.
  def execute(name, &block)
    enclosing = self
    resource = Execute.new(name)
    resource.define_singleton_method(:new_resource) { enclosing }
    declare(resource, &block)
  end

  def run
    return puts "#{@name}: skipped" unless @guards.all? { |wanted, block| (block.call ? true : false) == wanted }

    instance_eval(&self.class.body)
  end
end

def declare(resource, &block)
  resource.instance_eval(&block)
  resource.run
end

def execute(name, &block) = declare(Execute.new(name), &block)

ARGV.drop(1).each do |file|
  resource = Class.new(CustomResource) { class_eval(File.read(file), file) }
  resource.names.each { |name| define_method(name) { |title, &block| declare(resource.new(title), &block) } }
end
home_dir = Dir.pwd
eval File.read(ARGV[0]), binding, ARGV[0]
