import CPlatform
import Foundation
import HearthCore
import HearthTransfer

/// The bundles a gateway holds: unpacked, read-only, one folder a digest, sharing their large files as blobs.
public struct BundleCatalog: Sendable {
  let root: String
  private let limits: BundleLimits
  public let blobs: BlobStore
  /// Held while weights are fetched: two deploys of the same file would write into the same partial one.
  private let fetching = NSLock()

  /// Opens the catalog below `folder`, creating it, and clears what an interrupted upload left.
  public init(folder: String, limits: BundleLimits) throws {
    root = folder
    self.limits = limits
    blobs = BlobStore(folder: "\(folder)/blobs", staging: "\(folder)/staging")
    for name in ["blobs", "bundles", "models", "staging"] {
      try FileManager.default.createDirectory(atPath: "\(folder)/\(name)", withIntermediateDirectories: true)
    }
    for name in try FileManager.default.contentsOfDirectory(atPath: "\(folder)/staging")
    where !name.hasPrefix("partial-") {
      removeTree("\(folder)/staging/\(name)")
    }
  }

  /// The unpacked files of a bundle. Throws `bundle_not_found`.
  public func folder(of digest: Digest) throws -> String {
    let folder = "\(root)/bundles/\(digest.hex)/tree"
    guard access(folder, X_OK) == 0 else {
      throw HearthError(
        .bundleNotFound, "No bundle \(digest.short)… was uploaded.", hint: "Upload it, then deploy its digest.")
    }
    return folder
  }

  /// Reads `function.yaml` of a bundle.
  public func spec(of digest: Digest) throws -> FunctionSpec {
    try FunctionSpec.ofFolder(folder(of: digest))
  }

  /// Begins an upload.
  ///
  /// - Parameter content: what the archive is to hold, which decides what is checked.
  public func upload(_ content: BundleContent = .function) throws -> BundleUpload {
    let staging = try makeStaging()
    return BundleUpload(self, staging: staging, content, limits: limits)
  }

  private func makeStaging() throws -> String {
    let staging = "\(root)/staging/bundle-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: "\(staging)/tree", withIntermediateDirectories: true)
    return staging
  }

  /// Fetches a file of weights and keeps it as a bundle of its own. Throws `source_failed` or `blob_digest_mismatch`.
  ///
  /// - Parameter sha256: what its content must be; nil takes what comes.
  public func fetchWeights(_ source: String, sha256: Digest?, progress: (Int64, Int64) -> Void) throws -> Digest {
    let name = String(source.prefix { $0 != "?" && $0 != "#" }.split(separator: "/").last ?? "weights")
    let file = (try? BundlePath.check(name)) == nil ? "weights" : name
    let staging = try makeStaging()
    defer { removeTree(staging) }
    let path = "\(staging)/tree/\(file)"
    try SourceDownload.fetch(source, to: path, progress: progress)
    let manifest = try BundleManifest.ofFolder("\(staging)/tree")
    guard sha256 == nil || manifest.files.first?.digest == sha256 else {
      throw HearthError(
        .blobDigestMismatch, "What the source sends has another digest than was asked for.",
        hint: "Correct the digest, or the source.")
    }
    try commit(staging, manifest, unpacked: [file], .weights)
    return manifest.digest
  }

  /// Fetches the weights that `files` gives a source for, and puts them into the bundle's folder.
  ///
  /// - Parameter progress: the file, bytes so far, bytes in all (0 when unknown).
  public func fetchSources(
    of digest: Digest, _ spec: FunctionSpec, progress: (_ path: String, _ moved: Int64, _ total: Int64) -> Void
  ) throws {
    let folder = try folder(of: digest)
    fetching.lock()
    defer { fetching.unlock() }
    for file in spec.files {
      guard let source = file.source, let sha256 = file.sha256, access("\(folder)/\(file.path)", R_OK) != 0
      else { continue }
      if !blobs.contains(sha256) {
        let partial = blobs.partialPath(of: sha256)
        try SourceDownload.fetch(source, to: partial) { progress(file.path, $0, $1) }
        guard try SHA256.digest(ofFile: partial) == sha256 else {
          unlink(partial)
          throw HearthError(
            .blobDigestMismatch, "'\(file.path)' from its source has another digest than function.yaml pins.",
            hint: "Correct sha256, or the source.")
        }
        synchroniseDisk(root)
        try blobs.adopt(partial, as: sha256)
        unlink(partial)
      }
      try withWritableFolder(of: "\(folder)/\(file.path)", below: folder) {
        try place(sha256, at: "\(folder)/\(file.path)")
      }
    }
  }

  /// Makes the staged files a bundle: blobs shared, everything read-only, then renamed into place.
  fileprivate func commit(
    _ staging: String, _ manifest: BundleManifest, unpacked: Set<String>, _ content: BundleContent
  ) throws {
    let target = "\(root)/bundles/\(manifest.digest.hex)"
    guard access("\(target)/tree", X_OK) != 0 else { return }
    let missing = manifest.files.filter { !unpacked.contains($0.path) && !blobs.contains($0.digest) }
    guard missing.isEmpty else {
      throw HearthError(
        .blobMissing, "The gateway lacks \(missing.count) of the bundle's blobs, first '\(missing[0].path)'.",
        hint: "Ask /v1/blobs/missing which, upload those, then the bundle again.")
    }
    // A blob's name promises its content: both must be on disk in that order.
    synchroniseDisk(staging)
    for entry in manifest.files {
      let path = "\(staging)/tree/\(entry.path)"
      if entry.isBlob {
        if unpacked.contains(entry.path) { try blobs.adopt(path, as: entry.digest) }
        unlink(path)
        try FileManager.default.createDirectory(
          atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try place(entry.digest, at: path)
      } else {
        chmod(path, entry.isExecutable ? 0o555 : 0o444)
      }
    }
    try Data(manifest.encoded()).write(to: URL(fileURLWithPath: "\(staging)/manifest.json"))
    if content == .function { try FunctionSpec.ofFolder("\(staging)/tree").checkFiles(in: "\(staging)/tree") }
    setFolderModes("\(staging)/tree", 0o555)
    synchroniseDisk(staging)
    guard rename(staging, target) == 0 || access("\(target)/tree", X_OK) == 0 else {
      throw HearthError(.internalError, "The bundle could not be stored.", cause: String(cString: strerror(errno)))
    }
  }

  private func place(_ digest: Digest, at path: String) throws {
    guard link(blobs.path(of: digest), path) == 0 || errno == EEXIST else {
      throw HearthError(.internalError, "A blob could not be placed.", cause: String(cString: strerror(errno)))
    }
  }

  /// Runs `body` while the folders down to `path` can be written.
  private func withWritableFolder(of path: String, below root: String, _ body: () throws -> Void) throws {
    let parent = (path as NSString).deletingLastPathComponent
    setFolderModes(root, 0o755)
    defer { setFolderModes(root, 0o555) }
    try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
    try body()
  }
}

/// What a bundle is uploaded as.
public enum BundleContent: Sendable {
  /// Code, `function.yaml` and weights.
  case function
  /// The weights of one model.
  case weights
}

/// One bundle on its way in. What is not finished leaves nothing behind.
public final class BundleUpload {
  private let catalog: BundleCatalog
  private let staging: String
  private let content: BundleContent
  private let unpacker: BundleUnpacker

  fileprivate init(_ catalog: BundleCatalog, staging: String, _ content: BundleContent, limits: BundleLimits) {
    self.catalog = catalog
    self.content = content
    self.staging = staging
    unpacker = BundleUnpacker(into: "\(staging)/tree", limits: limits)
  }

  deinit { removeTree(staging) }

  public func write(_ bytes: UnsafeRawBufferPointer) throws { try unpacker.feed(bytes) }

  /// The archive has ended; returns the bundle's digest once it is stored.
  public func finish() throws -> Digest {
    let (manifest, unpacked) = try unpacker.finish()
    try catalog.commit(staging, manifest, unpacked: unpacked, content)
    return manifest.digest
  }
}

/// Removes a folder whose parts may be read-only.
public func removeTree(_ path: String) {
  setFolderModes(path, 0o755)
  try? FileManager.default.removeItem(atPath: path)
}

private func setFolderModes(_ path: String, _ mode: mode_t) {
  // Top down when opening up, bottom up when closing: a folder must be listable while its children are visited.
  if mode & S_IWUSR != 0 { chmod(path, mode) }
  for name in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] {
    var status = stat()
    if lstat("\(path)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
      setFolderModes("\(path)/\(name)", mode)
    }
  }
  if mode & S_IWUSR == 0 { chmod(path, mode) }
}

private func synchroniseDisk(_ path: String) {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return }
  hearth_sync_file_system(descriptor)
  close(descriptor)
}
