import ArgumentParser
import Foundation
import HearthConfiguration
import HearthServer

struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a gateway until SIGTERM or SIGINT.",
    discussion: "Prints one line on standard output once it listens. Settings: docs/configuration.md.")

  @Option(help: "Where state lives.")
  var dataDir: String?

  @Option(help: "HOST:PORT of the data plane; port 0 picks one.")
  var listen: String?

  @Option(help: "HOST:PORT of the admin plane; loopback only.")
  var admin: String?

  @Option(help: "A hearth.yaml with further settings.")
  var config: String?

  @Option(help: "Least severe message shown: trace, debug, info, notice, warning, error.")
  var logLevel: String?

  func run() async throws {
    var configuration = try ConfigurationFiles.configuration(at: config)
    for (name, value) in [
      ("data-dir", dataDir), ("listen", listen), ("admin", admin), ("log-level", logLevel),
    ] {
      if let value { try configuration.set(name, value) }
    }
    try await Gateway(configuration).run { address in
      let line = "hearth listening data=\(address.data) admin=\(address.admin)\n"
      FileHandle.standardOutput.write(Data(line.utf8))
    }
  }
}
