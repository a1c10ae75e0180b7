import Foundation
import HearthCore

/// What a bundle consists of: each file's path, mode, size and digest, sorted by path. Its own digest names the
/// version, and is the same wherever and whenever the same files are packed.
public struct BundleManifest: Hashable, Sendable, Codable {
  /// One file of a bundle.
  public struct Entry: Hashable, Sendable, Codable {
    /// Relative, `/`-separated, UTF-8.
    public let path: String
    public let isExecutable: Bool
    public let size: Int64
    public let sha256: String

    public init(path: String, isExecutable: Bool, size: Int64, digest: Digest) {
      self.path = path
      self.isExecutable = isExecutable
      self.size = size
      sha256 = digest.hex
    }

    public var digest: Digest { try! Digest(sha256) }

    /// Whether the file is kept as a blob of its own: 1 MiB and more, and not a program.
    public var isBlob: Bool { size >= BundleManifest.blobSizeMin && !isExecutable }

    enum CodingKeys: String, CodingKey {
      case path, size, sha256
      case isExecutable = "executable"
    }
  }

  /// 1 MiB: below, asking whether the gateway has a file costs more than sending it.
  public static let blobSizeMin: Int64 = 1 << 20
  /// The archive entry that carries the manifest; it comes first and is no file of the bundle.
  public static let archivePath = ".hearth-manifest.json"

  public let files: [Entry]

  public init(_ entries: [Entry]) {
    files = entries.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
  }

  /// SHA-256 over one line a file: mode, digest, path.
  public var digest: Digest {
    let lines = files.map { "\($0.isExecutable ? "755" : "644") \($0.sha256) \($0.path)\n" }
    return SHA256.digest(of: lines.joined())
  }

  public var byteCount: Int64 { files.reduce(0) { $0 + $1.size } }

  public func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return [UInt8](try encoder.encode(self))
  }

  /// Reads a manifest from an archive. Throws `archive_manifest_invalid`, or what `BundlePath` refuses.
  public static func decoded(_ bytes: [UInt8]) throws -> BundleManifest {
    guard let manifest = try? JSONDecoder().decode(BundleManifest.self, from: Data(bytes)),
      manifest.files.allSatisfy({ (try? Digest($0.sha256)) != nil && $0.size >= 0 })
    else {
      throw HearthError(.archiveManifestInvalid, "The archive's manifest is not valid.")
    }
    var paths = BundlePathSet()
    for entry in manifest.files { try paths.insert(entry.path) }
    return BundleManifest(manifest.files)
  }

  /// Reads a folder. Links, special files and unreadable files are refused; nothing is followed.
  ///
  /// - Parameters:
  ///   - excluding: paths to leave out: weights that the gateway fetches from their source.
  ///   - progress: bytes read so far.
  public static func ofFolder(
    _ folder: String, excluding: Set<String> = [], progress: (Int64) -> Void = { _ in }
  ) throws -> BundleManifest {
    var entries: [Entry] = []
    var paths = BundlePathSet()
    var bytesRead: Int64 = 0
    for path in try FolderListing.files(of: folder) where !excluding.contains(path) {
      try paths.insert(path)
      entries.append(try entry(path, in: folder))
      bytesRead += entries.last!.size
      progress(bytesRead)
    }
    return BundleManifest(entries)
  }

  /// A bundle of one file of a folder.
  public static func ofFile(_ name: String, in folder: String) throws -> BundleManifest {
    try BundlePath.check(name)
    return BundleManifest([try entry(name, in: folder)])
  }

  private static func entry(_ path: String, in folder: String) throws -> Entry {
    let full = "\(folder)/\(path)"
    var status = stat()
    guard lstat(full, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw unusable(path, "be read") }
    let digest = try SHA256.digest(ofFile: full)
    return Entry(
      path: path, isExecutable: status.st_mode & S_IXUSR != 0, size: Int64(status.st_size), digest: digest)
  }
}
