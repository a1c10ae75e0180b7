import ArgumentParser
import Foundation
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

  struct Outcome: Codable {
    let name: String
    let version: String
    let number: Int
    let digest: String
  }

  func run() throws {
    let client = try gateway.client()
    let bundle = try LocalBundle(path)
    let name = try self.name.map { try FunctionName($0) } ?? bundle.spec.name
    try sendBlobs(of: bundle, client)
    let digest = try sendBundle(bundle, client)
    let outcome = try deploy(name, digest, client)
    if gateway.json { return try JSONOutput.print(outcome) }
    print("\(outcome.name) is deployed as version \(outcome.number) (\(outcome.version)).")
    print("Call it: hearth call \(outcome.name) -d '{}'")
  }

  private func sendBlobs(of bundle: LocalBundle, _ client: AdminClient) throws {
    let blobs = bundle.blobs
    guard !blobs.isEmpty else { return }
    struct Missing: Decodable {
      let missing: [String]
    }
    let query = try JSONEncoder().encode(["digests": blobs.map(\.digest.hex)])
    let answer: Missing = try AdminClient.decode(
      client.call("POST", "/v1/blobs/missing", body: .bytes([UInt8](query))))
    var missing = Set(answer.missing)
    for blob in blobs where missing.remove(blob.digest.hex) != nil {
      _ = try client.call(
        "PUT", "/v1/blobs/\(blob.digest.hex)", body: .file(path: "\(bundle.folder)/\(blob.path)", size: blob.size),
        type: "application/octet-stream", progress: { Terminal.progress("uploading \(blob.path)", $0, $1) })
    }
    Terminal.clearStatus()
  }

  private func sendBundle(_ bundle: LocalBundle, _ client: AdminClient) throws -> String {
    let archive = NSTemporaryDirectory() + "hearth-\(UUID().uuidString).tar.zst"
    defer { unlink(archive) }
    try BundleArchive.pack(bundle.folder, manifest: bundle.manifest, to: archive, withoutBlobs: true)
    let size = try FileManager.default.attributesOfItem(atPath: archive)[.size] as? Int64 ?? 0
    struct Stored: Decodable {
      let digest: String
    }
    let answer: Stored = try AdminClient.decode(
      client.call(
        "POST", "/v1/bundles", body: .file(path: archive, size: size), type: "application/zstd",
        progress: { Terminal.progress("uploading", $0, $1) }))
    Terminal.clearStatus()
    return answer.digest
  }

  /// Reads the deploy's steps as they come, and its result.
  private func deploy(_ name: FunctionName, _ digest: String, _ client: AdminClient) throws -> Outcome {
    struct Line: Decodable {
      let progress: String?
      let result: Outcome?
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
