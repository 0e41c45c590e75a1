# What the Vagrantfile does on the host: read the table, ask the control plane for tokens, get this host a certificate.
# Plain Ruby as Vagrant brings it; nothing is installed, and no private key leaves the machine that made it.

require "open3"
require "openssl"
require "shellwords"

module Wherry
  Machine = Struct.new(:name, :address, :cpus, :memory, :role)
  RENEW_BEFORE = 30 * 24 * 3600 # seconds of validity left

  # What Vagrant shows as it is, without its own stack.
  class Trouble < Vagrant::Errors::VagrantError
    attr_reader :error_message

    def initialize(text)
      @error_message = text
      super()
    end
  end

  # The table's first `count` machines; beyond its end, more like the last one.
  def self.machines(table, count)
    rows = table.lines.drop(1).map(&:split)
    while rows.size < count
      name, address, *rest = rows.last
      rows << [name.next, address.sub(/\d+\z/, &:next), *rest]
    end
    rows.first([count, 1].max).map do |name, address, cpus, memory, role|
      Machine.new(name, address, size("WHERRY_CPUS", cpus), size("WHERRY_MEMORY", memory), role)
    end
  end

  def self.size(variable, usual)
    Integer(ENV.fetch(variable, usual))
  end

  # /dev/kvm alone is no proof: some cloud machines have one that starts no guest.
  def self.kvm?
    File.writable?("/dev/kvm") && File.read("/proc/cpuinfo").match?(/\b(vmx|svm)\b/)
  rescue SystemCallError
    false
  end

  # How vagrant/provision/machine is called in one machine.
  def self.arguments(machine)
    kind = machine.role == "control-plane" ? "control-plane" : "node"
    arguments = [kind, "--address", machine.address, "--node-name", machine.name]
    arguments += ["--proxy-mode", ENV["WHERRY_PROXY_MODE"]] if ENV["WHERRY_PROXY_MODE"]
    arguments + sources
  end

  # Where packages and the project come from.
  def self.sources
    arguments = []
    arguments += ["--source", ENV["WHERRY_SOURCE"]] if ENV["WHERRY_SOURCE"]
    arguments += ["--offline", "/offline"] if ENV["WHERRY_OFFLINE"]
    arguments
  end

  # The words that let one machine join. A fresh one-use token each time a worker is provisioned: Vagrant calls `to_s`
  # only then. libvirt's machines come up side by side, so that a worker may have to wait for the control plane.
  class JoinLine
    COMMAND = "sudo wherry token create --ttl 1h --print-join-command".freeze
    PATIENCE = 1200 # seconds; in software emulation a control plane takes minutes

    def initialize(control_plane)
      @control_plane = control_plane
    end

    def to_s
      deadline = now + PATIENCE
      loop do
        answer, status = Open3.capture2e("vagrant", "ssh", @control_plane, "--no-tty", "-c", COMMAND)
        line = answer[/^wherry join (.+?)\s*$/, 1]
        return line if status.success? && line

        waiting = made? && now < deadline
        raise Trouble, "#{@control_plane} gives no join line; is it up? `vagrant up #{@control_plane}`\n#{answer}" unless waiting

        sleep 5
      end
    end

    private

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def made?
      folder = ENV.fetch("VAGRANT_DOTFILE_PATH", ".vagrant")
      !Dir.glob(File.join(File.expand_path(folder), "machines", @control_plane, "*", "id")).empty?
    end
  end

  # A kubeconfig for this host: its own key, a certificate that the control plane signs, the cluster's CA.
  def self.admit_host(machine, address)
    path = machine.env.local_data_path.join("kubeconfig")
    ask = lambda do |command, **options|
      output = +""
      machine.communicate.sudo(command, **options) { |type, data| output << data if type == :stdout }
      output
    end
    found = ask.call("cat /etc/wherry/pki/ca.crt", error_check: false)
    return machine.ui.warn("no cluster yet: `vagrant provision` makes it") if found.empty?

    authority = OpenSSL::X509::Certificate.new(found)
    unless valid?(path, authority)
      key = OpenSSL::PKey::EC.generate("prime256v1")
      request = request_for(key)
      certificate = ask.call("/vagrant/vagrant/provision/admit #{Shellwords.escape(request.to_pem)}")
      write(path, address, authority, OpenSSL::X509::Certificate.new(certificate), key)
    end
    machine.ui.success("kubectl from this host: export KUBECONFIG=#{path}")
  end

  def self.request_for(key)
    request = OpenSSL::X509::Request.new
    request.version = 0
    user = "host:#{ENV['USER'] || 'root'}"
    request.subject = OpenSSL::X509::Name.new([["O", "wherry:lab-admins"], ["CN", user]])
    request.public_key = key
    request.sign(key, "SHA256")
  end

  # True if the kubeconfig's certificate is of this cluster's CA and lasts a while.
  def self.valid?(path, authority)
    return false unless path.file?

    text = path.read[/client-certificate-data: (\S+)/, 1].to_s.unpack1("m")
    certificate = OpenSSL::X509::Certificate.new(text)
    certificate.verify(authority.public_key) && certificate.not_after - Time.now > RENEW_BEFORE
  rescue OpenSSL::OpenSSLError
    false
  end

  def self.write(path, address, authority, certificate, key)
    encode = ->(pem) { [pem].pack("m0") }
    text = <<~YAML
      apiVersion: v1
      kind: Config
      clusters:
      - name: wherry
        cluster:
          server: https://#{address}:6443
          certificate-authority-data: #{encode.call(authority.to_pem)}
      users:
      - name: host
        user:
          client-certificate-data: #{encode.call(certificate.to_pem)}
          client-key-data: #{encode.call(key.to_pem)}
      contexts:
      - name: wherry
        context: {cluster: wherry, user: host}
      current-context: wherry
    YAML
    File.open("#{path}.new", File::WRONLY | File::CREAT | File::TRUNC, 0o600) { |file| file.write(text) }
    File.rename("#{path}.new", path)
  end
end
