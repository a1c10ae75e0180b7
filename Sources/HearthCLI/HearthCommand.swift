import ArgumentParser
import HearthCore

/// `hearth`: serves functions, and manages those of a running gateway.
@main
struct HearthCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hearth",
    abstract: "A self-hosted, serverless-style function gateway for models.",
    discussion: """
      A gateway is found by --data-dir (default ./hearth-data), or by HEARTH_ADMIN and HEARTH_TOKEN.

      Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 the gateway could not be reached; \
      64 the command line is not valid.
      """,
    subcommands: [
      Serve.self, Run.self, BundleCommand.self, Deploy.self, Call.self, List.self, Describe.self, Workers.self,
      ModelsCommand.self, Devices.self, Logs.self,
      Policy.self, Why.self, TraceCommand.self, ReplayCommand.self, Versions.self, Delete.self, Version.self,
    ])

  static func main() async {
    do {
      var command = try parseAsRoot()
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    } catch let error as HearthError {
      Terminal.complain(error)
      exit(withError: ExitCode(error.code == .gatewayUnreachable ? 2 : 1))
    } catch {
      exit(withError: error)
    }
  }
}
