import Foundation
import HearthBundle
import HearthCore

/// A bundle on this machine: a folder, or an archive unpacked to a temporary one.
final class LocalBundle {
  let folder: String
  let spec: FunctionSpec
  let manifest: BundleManifest
  private let temporary: String?

  init(_ path: String) throws {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw HearthError(.fileUnusable, "'\(path)' does not exist.", hint: "Name a bundle's folder or its .tar.zst.")
    }
    if isFolder.boolValue {
      folder = path
      temporary = nil
    } else {
      let catalogFolder = NSTemporaryDirectory() + "hearth-\(UUID().uuidString)"
      temporary = catalogFolder
      folder = try LocalBundle.unpack(path, catalogFolder)
    }
    spec = try FunctionSpec.ofFolder(folder)
    try spec.checkFiles(in: folder)
    // Weights with a source are not part of the bundle: the gateway fetches them, or gets them as blobs.
    let sourced = Set(spec.files.filter { $0.source != nil }.map(\.path))
    manifest = try BundleManifest.ofFolder(folder, excluding: sourced) {
      Terminal.progress("reading", $0, 0)
    }
    Terminal.clearStatus()
  }

  deinit { if let temporary { removeTree(temporary) } }

  private static func unpack(_ path: String, _ catalogFolder: String) throws -> String {
    let catalog = try BundleCatalog(folder: catalogFolder, limits: BundleLimits())
    let upload = try catalog.upload()
    guard let file = FileHandle(forReadingAtPath: path) else {
      throw HearthError(.fileUnusable, "'\(path)' cannot be read.")
    }
    while let part = try file.read(upToCount: 1 << 20), !part.isEmpty {
      try part.withUnsafeBytes(upload.write)
    }
    return try catalog.folder(of: upload.finish())
  }

  /// Files that travel as blobs: those of the manifest, and weights with a source that are here already.
  var blobs: [ThinUpload.Blob] {
    let own = manifest.files.filter(\.isBlob).map {
      ThinUpload.Blob(path: "\(folder)/\($0.path)", digest: $0.digest, size: $0.size)
    }
    let sourced = spec.files.compactMap { file -> ThinUpload.Blob? in
      let path = "\(folder)/\(file.path)"
      guard file.source != nil, let pinned = file.sha256, (try? SHA256.digest(ofFile: path)) == pinned,
        let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int64
      else { return nil }
      return ThinUpload.Blob(path: path, digest: pinned, size: size)
    }
    return own + sourced
  }

  func describe(json: Bool, archive: String?) throws {
    if json {
      struct View: Encodable {
        let name: String
        let digest: String
        let files: [BundleManifest.Entry]
        let archive: String?
      }
      try JSONOutput.print(
        View(name: spec.name.rawValue, digest: manifest.digest.hex, files: manifest.files, archive: archive))
      return
    }
    let size = ByteSize(bytes: manifest.byteCount).rounded
    print("\(spec.name): \(manifest.files.count) files, \(size), digest \(manifest.digest.short)")
    if let archive { print("packed into \(archive)") }
  }
}

/// JSON for programs: sorted keys, so that outputs compare.
enum JSONOutput {
  static func print(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .iso8601
    Swift.print(String(decoding: try encoder.encode(value), as: UTF8.self))
  }

  /// Prints JSON as it came from the gateway.
  static func pass(_ bytes: [UInt8]) {
    FileHandle.standardOutput.write(Data(bytes + [UInt8(ascii: "\n")]))
  }
}
