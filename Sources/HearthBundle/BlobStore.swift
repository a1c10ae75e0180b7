import Foundation
import HearthCore

/// Files by the digest of their content, each written once and never changed.
public struct BlobStore: Sendable {
  private let folder: String
  private let staging: String

  init(folder: String, staging: String) {
    self.folder = folder
    self.staging = staging
  }

  /// The path of a blob, whether it is there or not.
  public func path(of digest: Digest) -> String { "\(folder)/\(digest.hex.prefix(2))/\(digest.hex)" }

  public func contains(_ digest: Digest) -> Bool { access(path(of: digest), R_OK) == 0 }

  /// Takes over a file on the same file system. Does nothing when the blob is there already.
  func adopt(_ file: String, as digest: Digest) throws {
    guard !contains(digest) else { return }
    try FileManager.default.createDirectory(
      atPath: "\(folder)/\(digest.hex.prefix(2))", withIntermediateDirectories: true)
    chmod(file, 0o444)
    guard link(file, path(of: digest)) == 0 || errno == EEXIST else {
      throw HearthError(.internalError, "A blob could not be stored.", cause: String(cString: strerror(errno)))
    }
  }

  /// An upload of one blob; it counts only once `finish` has seen the right digest.
  public func upload(_ digest: Digest) throws -> BlobUpload { try BlobUpload(self, digest, staging: staging) }

  /// Where an interrupted download of a blob goes on.
  func partialPath(of digest: Digest) -> String { "\(staging)/partial-\(digest.hex)" }
}

/// One blob on its way in.
public final class BlobUpload {
  private let store: BlobStore
  private let digest: Digest
  private let path: String
  private let file: UnsafeMutablePointer<FILE>
  private let hash = SHA256()

  fileprivate init(_ store: BlobStore, _ digest: Digest, staging: String) throws {
    self.store = store
    self.digest = digest
    path = "\(staging)/blob-\(UUID().uuidString)"
    guard let file = fopen(path, "wxe") else {
      throw HearthError(.internalError, "A blob could not be stored.", cause: String(cString: strerror(errno)))
    }
    self.file = file
  }

  deinit {
    fclose(file)
    unlink(path)
  }

  public func write(_ bytes: UnsafeRawBufferPointer) throws {
    hash.update(bytes)
    guard fwrite(bytes.baseAddress, 1, bytes.count, file) == bytes.count else {
      throw HearthError(.internalError, "The gateway's disk is full.", cause: String(cString: strerror(errno)))
    }
  }

  public func finish() throws {
    guard hash.finish() == digest else {
      throw HearthError(
        .blobDigestMismatch, "The content received is not that of \(digest.short)….", hint: "Upload it again.")
    }
    guard fflush(file) == 0, fsync(fileno(file)) == 0 else {
      throw HearthError(.internalError, "The gateway's disk is full.", cause: String(cString: strerror(errno)))
    }
    try store.adopt(path, as: digest)
  }
}
