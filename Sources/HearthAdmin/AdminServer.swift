import HearthBundle
import HearthCore
import HearthHTTP1
import Hummingbird
import Logging
import NIOCore
import NIOPosix

/// The admin plane: the control API, on loopback, for whoever has the token.
public enum AdminServer {
  /// What is left of the host and port once it listens.
  public typealias Listening = @Sendable (_ port: Int) async -> Void

  public static func application(
    registry: FunctionRegistry, catalog: BundleCatalog, host: String, port: Int, token: String, dataAddress: String,
    version: String, group: MultiThreadedEventLoopGroup, logger: Logger, listening: @escaping Listening
  ) -> some ApplicationProtocol {
    let router = Router(context: BasicRequestContext.self)
    router.add(middleware: ErrorMiddleware(logger: logger))
    router.add(middleware: TokenMiddleware { Bearer.matches($0, key: token) })
    AdminRoutes(registry: registry, catalog: catalog, dataAddress: dataAddress, version: version).add(to: router)
    return Application(
      router: router,
      configuration: .init(address: .hostname(host, port: port), serverName: "hearth"),
      onServerRunning: { channel in await listening(channel.localAddress?.port ?? port) },
      eventLoopGroupProvider: .shared(group), logger: logger)
  }
}
