import HearthAdmin
import HearthBundle
import HearthConfiguration
import HearthCore
import HearthDispatch
import HearthHTTP
import HearthStore
import HearthWorker
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

/// A whole gateway, put together: what listens, what decides and what runs workers.
public struct Gateway: Sendable {
  public static let version = "0.1.0"

  let configuration: GatewayConfiguration
  let logger: Logger

  public init(_ configuration: GatewayConfiguration) throws {
    try configuration.validate()
    self.configuration = configuration
    var logger = Logger(label: "hearth") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = Logger.Level(rawValue: configuration.logLevel) ?? .info
    self.logger = logger
  }

  /// Runs until SIGTERM or SIGINT, or until the task is cancelled. `ready` is told where it listens.
  public func run(ready: @escaping @Sendable (GatewayAddress) -> Void) async throws {
    let folder = try DataFolder(configuration.dataFolder)
    raiseDescriptorLimit()
    let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoopCount)
    let control = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let clock = SystemClock()
    let host = try LocalHost(
      loop: control.next(), runtime: ConfigurationFiles.runtimeFolder(configured: configuration.runtimeFolder),
      dataFolder: folder.path, logs: folder.logs, simulated: configuration.simulatedDevices,
      logger: logger)
    let catalog = try BundleCatalog(folder: folder.path, limits: configuration.bundleLimits)
    let environments = try PythonEnvironments(
      folder: folder.environments, python: configuration.python, variables: ConfigurationFiles.environment)
    let dispatcher = Dispatcher(
      host: host, limits: configuration.nodeLimits, clock: clock, timers: control.next(), logger: logger)
    let arrivals = try ArrivalLog(
      folder: folder.arrivals, clock: clock, timers: control.next(), dispatcher: dispatcher,
      logger: logger)
    let registry = FunctionRegistry(
      store: try FunctionStore(path: folder.database),
      preparer: VersionPreparer(catalog: catalog, environments: environments, host: host, logFolder: folder.logs),
      dispatcher: dispatcher, arrivals: arrivals, logger: logger)
    let token = try AdminToken.readOrMake(in: folder.path)
    let listener = try await HTTPListener.bind(
      host: configuration.listen.host, port: configuration.listen.port, group: group,
      limits: configuration.httpLimits, router: dispatcher, clock: clock, certificate: configuration.certificate(),
      accessLog: configuration.accessLog.map(AccessLog.init))
    let port = listener.address.port ?? 0
    // Before any worker starts: those that are restored may call others. Who connects meanwhile waits.
    host.serves(at: configuration.localAddress(port: port))
    await registry.restore()
    try await listener.accept()
    let dataAddress = "\(configuration.scheme)://\(HostPort(host: configuration.listen.host, port: port))"
    let admin = AdminServer.application(
      registry: registry, catalog: catalog, host: configuration.admin.host, port: configuration.admin.port,
      token: token, dataAddress: dataAddress, version: Gateway.version,
      group: control, logger: logger.quieter
    ) { port in
      let address = GatewayAddress(
        data: dataAddress, admin: "http://\(HostPort(host: configuration.admin.host, port: port))", pid: getpid())
      try? address.write(to: folder.path)
      ready(address)
    }
    let data = DataPlane(listener: listener, dispatcher: dispatcher, arrivals: arrivals, host: host)
    // Shut down in reverse: the data plane drains before the admin plane, which shows how it goes, stops.
    let services = ServiceGroup(
      services: [admin, data], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger.quieter)
    do {
      try await services.run()
    } catch let error as IOError {
      throw HearthError(
        .configurationInvalid, "The admin plane cannot listen on \(configuration.admin).",
        hint: "Choose another port, or stop what uses it.", cause: String(describing: error))
    }
    try await group.shutdownGracefully()
    try await control.shutdownGracefully()
  }
}
