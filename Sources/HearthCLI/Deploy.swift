import ArgumentParser
import Foundation
import HearthAdmin
import HearthBundle
import HearthCore
import HearthTransfer

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
    let client = try gateway.client()
    let bundle = try LocalBundle(path)
    let name = try self.name.map { try FunctionName($0) } ?? bundle.spec.name
    let upload = ThinUpload(
      folder: bundle.folder, manifest: bundle.manifest, blobs: bundle.blobs, route: "/v1/bundles")
    let digest = try upload.send(to: client)
    let outcome = try deploy(name, digest, client)
    if gateway.json { return try JSONOutput.print(outcome) }
    print("\(outcome.name) is deployed as version \(outcome.number) (\(outcome.version)).")
    if bundle.spec.models == nil {
      print("Call it: hearth call \(outcome.name) -d '{}'")
    } else {
      print("Its models: hearth models \(outcome.name)")
      print("Call one: hearth call \(outcome.name) --model MODEL -d '{}'")
    }
  }

  /// Reads the deploy's steps as they come, and its result.
  private func deploy(_ name: FunctionName, _ digest: String, _ client: AdminClient) throws -> DeployView {
    struct Line: Decodable {
      let progress: String?
      let result: DeployView?
      let error: GatewayError.Envelope.Content?
    }
    var pending: [UInt8] = []
    var last: Line?
    _ = try client.call(
      "PUT", "/v1/functions/\(name)", body: .bytes(Array("{\"digest\":\"\(digest)\"}".utf8)),
      accept: "application/x-ndjson", stall: nil,
      receive: { bytes in
        pending.append(contentsOf: bytes)
        while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
          last = try? JSONDecoder().decode(Line.self, from: Data(pending[..<end]))
          pending.removeFirst(end + 1)
          if let step = last?.progress { Terminal.status(step) }
        }
        return true
      })
    Terminal.clearStatus()
    if let error = last?.error { throw GatewayError.error(error) }
    guard let outcome = last?.result else {
      throw HearthError(.gatewayUnreachable, "The gateway ended before the deploy had.", hint: "Deploy again.")
    }
    return outcome
  }
}
