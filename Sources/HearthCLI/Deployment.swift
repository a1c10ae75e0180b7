import Foundation
import HearthAdmin
import HearthCore

/// Uploads bundles to a gateway and has them served.
struct Deployment {
  let client: AdminClient

  /// Returns once the version is served. Throws what the gateway refuses it for; what was served before goes on then.
  func deploy(_ bundle: LocalBundle, as name: FunctionName) throws -> DeployView {
    let upload = ThinUpload(
      folder: bundle.folder, manifest: bundle.manifest, blobs: bundle.blobs, route: "/v1/bundles")
    return try deploy(name, upload.send(to: client))
  }

  /// Reads the deploy's steps as they come, and its result.
  private func deploy(_ name: FunctionName, _ digest: String) throws -> DeployView {
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
