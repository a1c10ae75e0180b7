import Foundation
import HearthCore

/// Packs a folder into a `.tar.zst`: the manifest first, then the files in the order of the manifest.
public enum BundleArchive {
  /// Writes the archive to `path`.
  ///
  /// - Parameters:
  ///   - withoutBlobs: leaves out the files that are blobs, for a gateway that has or gets them apart.
  ///   - progress: bytes packed so far.
  public static func pack(
    _ folder: String, manifest: BundleManifest, to path: String, withoutBlobs: Bool,
    progress: (Int64) -> Void = { _ in }
  ) throws {
    guard let file = fopen(path, "we") else { throw unusable(path, "be written") }
    defer { fclose(file) }
    let encoder = ZstandardEncoder()
    var packed: Int64 = 0
    func put(_ bytes: UnsafeRawBufferPointer, isLast: Bool = false) throws {
      try encoder.encode(bytes, isLast: isLast) { output in
        guard fwrite(output.baseAddress, 1, output.count, file) == output.count else {
          throw unusable(path, "be written")
        }
      }
      packed += Int64(bytes.count)
      progress(packed)
    }
    func put(_ bytes: [UInt8], isLast: Bool = false) throws {
      try bytes.withUnsafeBytes { try put($0, isLast: isLast) }
    }
    let encoded = try manifest.encoded()
    try put(
      TarWriter.header(path: BundleManifest.archivePath, isExecutable: false, size: Int64(encoded.count)))
    try put(encoded)
    try put(TarWriter.padding(encoded.count))
    for entry in manifest.files where !(withoutBlobs && entry.isBlob) {
      try put(TarWriter.header(path: entry.path, isExecutable: entry.isExecutable, size: entry.size))
      var size: Int64 = 0
      try readFile("\(folder)/\(entry.path)") { bytes in
        size += Int64(bytes.count)
        try put(bytes)
      }
      guard size == entry.size else {
        throw HearthError(.fileUnusable, "'\(entry.path)' changed while it was packed.", hint: "Pack it again.")
      }
      try put(TarWriter.padding(Int(size % Int64(TarReader.blockSize))))
    }
    try put(TarWriter.end, isLast: true)
    guard fflush(file) == 0 else { throw unusable(path, "be written") }
  }
}
