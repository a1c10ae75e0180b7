import Foundation
import HearthAdmin
import HearthBundle
import HearthCore

/// Sends a folder's files to a gateway: the large ones that it lacks first, then an archive with the others.
struct ThinUpload {
  struct Blob {
    /// Where the file is on this machine.
    let path: String
    let digest: Digest
    let size: Int64
  }

  let folder: String
  let manifest: BundleManifest
  let blobs: [Blob]
  /// The call that takes the archive.
  let route: String

  /// Returns the digest under which the gateway keeps it.
  func send(to client: AdminClient) throws -> String {
    try sendBlobs(client)
    return try sendArchive(client)
  }

  private func sendBlobs(_ client: AdminClient) throws {
    guard !blobs.isEmpty else { return }
    let query = try JSONEncoder().encode(["digests": blobs.map(\.digest.hex)])
    let answer: MissingBlobsView = try AdminClient.decode(
      client.call("POST", "/v1/blobs/missing", body: .bytes([UInt8](query))))
    var missing = Set(answer.missing)
    for blob in blobs where missing.remove(blob.digest.hex) != nil {
      let name = (blob.path as NSString).lastPathComponent
      _ = try client.call(
        "PUT", "/v1/blobs/\(blob.digest.hex)", body: .file(path: blob.path, size: blob.size),
        type: "application/octet-stream", progress: { Terminal.progress("uploading \(name)", $0, $1) })
    }
    Terminal.clearStatus()
  }

  private func sendArchive(_ client: AdminClient) throws -> String {
    let archive = NSTemporaryDirectory() + "hearth-\(UUID().uuidString).tar.zst"
    defer { unlink(archive) }
    try BundleArchive.pack(folder, manifest: manifest, to: archive, withoutBlobs: true)
    let size = try FileManager.default.attributesOfItem(atPath: archive)[.size] as? Int64 ?? 0
    let answer: BundleView = try AdminClient.decode(
      client.call(
        "POST", route, body: .file(path: archive, size: size), type: "application/zstd",
        progress: { Terminal.progress("uploading", $0, $1) }))
    Terminal.clearStatus()
    return answer.digest
  }
}

/// A model's weights on this machine: one file, or a folder.
struct WeightsUpload {
  private let upload: ThinUpload

  init(_ path: String) throws {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw HearthError(.fileUnusable, "'\(path)' does not exist.", hint: "Name a file or folder of weights, or a URL.")
    }
    let folder = isFolder.boolValue ? path : (path as NSString).deletingLastPathComponent
    let directory = folder.isEmpty ? "." : folder
    let manifest =
      isFolder.boolValue
      ? try BundleManifest.ofFolder(directory) { Terminal.progress("reading", $0, 0) }
      : try BundleManifest.ofFile((path as NSString).lastPathComponent, in: directory)
    Terminal.clearStatus()
    let blobs = manifest.files.filter(\.isBlob).map {
      ThinUpload.Blob(path: "\(directory)/\($0.path)", digest: $0.digest, size: $0.size)
    }
    upload = ThinUpload(folder: directory, manifest: manifest, blobs: blobs, route: "/v1/weights")
  }

  func send(to client: AdminClient) throws -> String { try upload.send(to: client) }
}
