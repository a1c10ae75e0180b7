import ArgumentParser
import HearthCore

struct Deploy: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Upload a bundle and serve it.",
    discussion: """
      Sends only the large files that the gateway lacks. A function that is already served goes on until the new \
      version is ready.
      """)

  @Argument(help: "A bundle's folder or its .tar.zst.")
  var path: String

  @Option(help: "Serve it under another name than function.yaml says.")
  var name: String?

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let deployment = Deployment(client: try gateway.client())
    let bundle = try LocalBundle(path)
    let name = try self.name.map { try FunctionName($0) } ?? bundle.spec.name
    let outcome = try deployment.deploy(bundle, as: name)
    if gateway.json { return try JSONOutput.print(outcome) }
    print("\(outcome.name) is deployed as version \(outcome.number) (\(outcome.version)).")
    if bundle.spec.models == nil {
      print("Call it: hearth call \(outcome.name) -d '{}'")
    } else {
      print("Its models: hearth models \(outcome.name)")
      print("Call one: hearth call \(outcome.name) --model MODEL -d '{}'")
    }
  }
}
