import HearthCore
import HearthYAML

/// Everything that can be set for a gateway, with its defaults. Options of `hearth serve` go before `hearth.yaml`, and
/// that before the defaults.
public struct GatewayConfiguration: Sendable {
  /// Where state lives: database, bundles, environments, logs, the admin token. Default `./hearth-data`.
  public var dataFolder = "hearth-data"
  /// Address of the data plane. Default 127.0.0.1:8080; port 0 picks a free one.
  public var listen = HostPort(host: "127.0.0.1", port: 8080)
  /// Address of the admin plane. Default 127.0.0.1:8081.
  public var admin = HostPort(host: "127.0.0.1", port: 8081)
  /// Keys that requests to the data plane must carry. Default none, which is refused beyond loopback.
  public var keys: [String] = []
  /// PEM files of the data plane's TLS: the certificate chain and its private key. Nil, the default: cleartext.
  public var tlsCertificate: String?
  public var tlsKey: String?
  /// Requests in flight of one key, or of one address where there are no keys. 0, the default, is no limit.
  public var requestsPerClientMax = 0
  /// Event loops of the data plane. 0, the default, takes one for every two cores.
  public var eventLoops = 0
  /// What all workers may take together. Nil, the default: four fifths of the machine's memory.
  public var workersMemory: ByteSize?
  /// Workers that may be starting at once. 0, the default, is two for every core.
  public var startsMax = 0
  /// Which idle workers and models make room when memory is needed: `lru`, the default, or `gdsf`.
  public var eviction = Eviction.lru
  /// What workers may take of each GPU. Nil, the default: all but 512MiB.
  public var deviceMemory: ByteSize?
  /// What models that have left their GPU may take of `workers-memory`. Nil, the default: half of it.
  public var hostCache: ByteSize?
  /// Loads that may be under way on one GPU. Default 2.
  public var loadsMax = 2
  /// GPUs that are not there, for tests and for trying things without one. Default none.
  public var simulated = SimulatedDevices()
  /// The file of the access log. Nil, the default: none is kept.
  public var accessLog: String?
  /// The interpreter that Python environments are built with. Default `python3`.
  public var python = "python3"
  /// The folder that holds `hearth_runtime`. Nil finds it beside the program.
  public var runtimeFolder: String?
  /// Least severe message that the gateway's own log shows: trace, debug, info, notice, warning, error. Default info.
  public var logLevel = "info"

  /// Longest time from a request's first byte to the end of its head. Default 30s.
  public var headerTimeout = Duration.seconds(30)
  /// Longest silence within a request's body, after which it must also keep up 500 bytes a second. Default 30s.
  public var bodyTimeout = Duration.seconds(30)
  /// How long a connection without a request is kept. Default 75s.
  public var idleConnectionTimeout = Duration.seconds(75)
  /// How long a client may take nothing of its response. Default 60s.
  public var clientStallTimeout = Duration.seconds(60)
  /// Largest request head. Default 32KiB.
  public var headMax = ByteSize.kib(32)
  /// Largest request body. Default 100MiB.
  public var bodyMax = ByteSize.mib(100)
  /// Most client connections at once. Default 10000.
  public var connectionsMax = 10_000
  /// Most files of a bundle. Default 20000.
  public var bundleFilesMax = 20_000
  /// Largest bundle when unpacked. Default 64GiB.
  public var bundleBytesMax = ByteSize.gib(64)
  /// Most times its packed size that a bundle may unpack to. Default 200.
  public var bundleRatioMax = 200

  public init() {}

  /// One setting as `hearth.yaml` and docs/configuration.md name it.
  public struct Setting: Sendable {
    public let name: String
    public let expected: String
    let write: @Sendable (String, inout GatewayConfiguration) -> Bool
  }

  /// Every scalar setting of `hearth.yaml`; `keys`, a list, and `simulated`, a section, are read apart.
  public static let settings: [Setting] = [
    text("data-dir", \.dataFolder, "a folder"),
    setting("listen", "HOST:PORT") { $1.set(\.listen, HostPort($0)) },
    setting("admin", "HOST:PORT") { $1.set(\.admin, HostPort($0)) },
    setting("tls-certificate", "a file") { text, configuration in
      configuration.tlsCertificate = text
      return true
    },
    setting("tls-key", "a file") { text, configuration in
      configuration.tlsKey = text
      return true
    },
    number("requests-per-client-max", \.requestsPerClientMax, 0...1_000_000),
    number("event-loops", \.eventLoops, 0...1024),
    setting("workers-memory", "a size such as 16GiB") { text, configuration in
      configuration.workersMemory = ByteSize(text).flatMap { $0 >= .mib(16) ? $0 : nil }
      return configuration.workersMemory != nil
    },
    number("starts-max", \.startsMax, 0...10_000),
    setting("eviction", "lru or gdsf") { text, configuration in
      configuration.set(\.eviction, Eviction(rawValue: text))
    },
    setting("device-memory", "a size such as 70GiB") { text, configuration in
      configuration.deviceMemory = ByteSize(text).flatMap { $0 > .zero ? $0 : nil }
      return configuration.deviceMemory != nil
    },
    setting("host-cache", "a size such as 32GiB; 0 keeps none") { text, configuration in
      configuration.hostCache = ByteSize(text)
      return configuration.hostCache != nil
    },
    number("max-parallel-loads", \.loadsMax, 1...1_000),
    setting("access-log", "a file, or none") { text, configuration in
      configuration.accessLog = text == "none" || text.isEmpty ? nil : text
      return true
    },
    text("python", \.python, "a program"),
    setting("runtime-dir", "a folder") { text, configuration in
      configuration.runtimeFolder = text
      return true
    },
    setting("log-level", "trace, debug, info, notice, warning or error") { text, configuration in
      configuration.logLevel = text
      return ["trace", "debug", "info", "notice", "warning", "error"].contains(text)
    },
    duration("header-timeout", \.headerTimeout),
    duration("body-timeout", \.bodyTimeout),
    duration("idle-connection-timeout", \.idleConnectionTimeout),
    duration("client-stall-timeout", \.clientStallTimeout),
    size("header-max", \.headMax),
    size("body-max", \.bodyMax),
    number("connections-max", \.connectionsMax, 1...1_000_000),
    number("bundle-files-max", \.bundleFilesMax, 1...10_000_000),
    size("bundle-bytes-max", \.bundleBytesMax),
    number("bundle-ratio-max", \.bundleRatioMax, 2...1_000_000),
  ]

  /// Reads the text of `hearth.yaml`. Throws `configuration_invalid` with line and column.
  public mutating func read(yaml: String, file: String) throws {
    let root = try YAMLMapping(parsing: yaml, file: file, code: .configurationInvalid)
    for setting in GatewayConfiguration.settings {
      guard let text = try root.text(setting.name) else { continue }
      guard setting.write(text, &self) else {
        throw root.invalid(
          setting.name, "'\(text.printable(limit: 80))' is not a value of \(setting.name).",
          hint: "Expected \(setting.expected).")
      }
    }
    keys = try root.texts("keys") ?? keys
    if let section = try root.mapping("simulated") { simulated = try SimulatedDevices(section) }
    try root.finish()
  }

  /// Sets one setting from an option. Throws `configuration_invalid`.
  public mutating func set(_ name: String, _ text: String) throws {
    guard let setting = GatewayConfiguration.settings.first(where: { $0.name == name }), setting.write(text, &self)
    else {
      throw HearthError(
        .configurationInvalid, "'\(text.printable(limit: 80))' is not a value of --\(name).",
        hint: GatewayConfiguration.settings.first { $0.name == name }.map { "Expected \($0.expected)." })
    }
  }

  /// Checks what no single setting can.
  public func validate() throws {
    guard admin.isLoopback else {
      throw HearthError(
        .configurationInvalid, "The admin plane listens on loopback only, not on \(admin).",
        hint: "Reach it from elsewhere through ssh -L or a proxy with TLS.")
    }
    guard listen.isLoopback || !keys.isEmpty else {
      throw HearthError(
        .configurationInvalid, "The data plane would listen on \(listen) for anyone.",
        hint: "Set 'keys' in hearth.yaml, or listen on 127.0.0.1.")
    }
    guard (tlsCertificate == nil) == (tlsKey == nil) else {
      throw HearthError(
        .configurationInvalid, "Only one of tls-certificate and tls-key is set.", hint: "Set both, or neither.")
    }
    if let short = keys.first(where: { $0.utf8.count < 16 }) {
      throw HearthError(
        .configurationInvalid, "A key of \(short.utf8.count) characters can be guessed.", hint: "Use 16 or more.")
    }
  }

  private static func setting(
    _ name: String, _ expected: String, _ write: @escaping @Sendable (String, inout GatewayConfiguration) -> Bool
  ) -> Setting {
    Setting(name: name, expected: expected, write: write)
  }

  private static func text(
    _ name: String, _ path: any WritableKeyPath<GatewayConfiguration, String> & Sendable, _ expected: String
  ) -> Setting {
    setting(name, expected) { $1.set(path, $0.isEmpty ? nil : $0) }
  }

  private static func number(
    _ name: String, _ path: any WritableKeyPath<GatewayConfiguration, Int> & Sendable, _ range: ClosedRange<Int>
  ) -> Setting {
    setting(name, "a whole number from \(range.lowerBound) to \(range.upperBound)") { text, configuration in
      configuration.set(path, Int(text).flatMap { range.contains($0) ? $0 : nil })
    }
  }

  private static func duration(
    _ name: String, _ path: any WritableKeyPath<GatewayConfiguration, Duration> & Sendable
  ) -> Setting {
    setting(name, "a duration such as 30s") { text, configuration in
      configuration.set(path, Duration(hearth: text).flatMap { $0 > .zero ? $0 : nil })
    }
  }

  private static func size(
    _ name: String, _ path: any WritableKeyPath<GatewayConfiguration, ByteSize> & Sendable
  ) -> Setting {
    setting(name, "a size such as 100MiB") { text, configuration in
      configuration.set(path, ByteSize(text).flatMap { $0.bytes >= 1024 ? $0 : nil })
    }
  }

  private mutating func set<Value>(_ path: WritableKeyPath<GatewayConfiguration, Value>, _ value: Value?) -> Bool {
    guard let value else { return false }
    self[keyPath: path] = value
    return true
  }
}

/// An address to listen on or to connect to.
public struct HostPort: Hashable, Sendable, CustomStringConvertible {
  public var host: String
  public var port: Int

  public init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  /// Reads `HOST:PORT`, with an IPv6 host in brackets. Nil when the text is not one.
  public init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
      (0...65535).contains(port)
    else { return nil }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    guard !host.isEmpty else { return nil }
    self.init(host: host, port: port)
  }

  public var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }

  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
