import ArgumentParser
import Foundation
import HearthBundle
import HearthConfiguration
import HearthCore
import HearthServer

struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve one function from its folder, for development.",
    discussion: """
      Deploys it again whenever one of its files changes, and prints its log. A change that cannot be loaded is told \
      of, and the version before goes on. Ctrl-C ends it.
      """)

  @Argument(help: "The function's folder.")
  var path = "."

  @Option(help: "HOST:PORT to serve at; port 0 picks one.")
  var listen = "127.0.0.1:8080"

  @Option(help: "Where packages and versions are kept (default: a folder for each function in the user's cache).")
  var dataDir: String?

  func run() async throws {
    _ = try FunctionSpec.ofFolder(path)
    let folder = URL(fileURLWithPath: path).path
    let isOwn = dataDir == nil
    let dataDir = dataDir ?? Run.cacheFolder(for: folder)
    var configuration = GatewayConfiguration()
    for (name, value) in [
      ("data-dir", dataDir), ("listen", listen), ("admin", "127.0.0.1:0"), ("log-level", "warning"),
    ] { try configuration.set(name, value) }
    try await Gateway(configuration).run { address in
      Thread.detachNewThread {
        let client = AdminClient(base: address.admin, token: AdminToken.read(in: dataDir) ?? "")
        var session = DevelopmentSession(folder: folder, address: address.data, client: client, ownsGateway: isOwn)
        session.run()
      }
    }
  }

  /// A path of its own for each function's folder, so that two can run at a time.
  private static func cacheFolder(for folder: String) -> String {
    let environment = ConfigurationFiles.environment
    let cache = environment["XDG_CACHE_HOME"] ?? "\(environment["HOME"] ?? NSTemporaryDirectory())/.cache"
    return "\(cache)/hearth/run/\(SHA256.digest(of: folder).short)"
  }
}
