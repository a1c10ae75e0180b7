import Foundation
import HearthCore

/// Unpacks a `.tar.zst` as it arrives, into a staging folder. Never trusts it: each fault has an error code, and the
/// staging folder is the caller's to remove.
final class BundleUnpacker {
  private enum State {
    /// Gathering the 512 bytes of a member's header.
    case header
    /// Gathering a pax header or the manifest, then skipping its padding.
    case gathering(isManifest: Bool, size: Int)
    case file(TarReader.Header, remaining: Int64)
    case padding(Int)
    /// The end marker was seen; only zeros may follow.
    case ended
  }

  private let folder: String
  private let limits: BundleLimits
  private let decoder = ZstandardDecoder()
  private var tar = TarReader()
  private var state = State.header
  private var gathered: [UInt8] = []
  private var file: UnsafeMutablePointer<FILE>?
  private var hash = SHA256()
  private var paths = BundlePathSet()
  private var entries: [BundleManifest.Entry] = []
  private var promised: BundleManifest?
  private var bytesIn: Int64 = 0
  private var bytesOut: Int64 = 0
  private var memberCount = 0

  init(into folder: String, limits: BundleLimits) {
    self.folder = folder
    self.limits = limits
  }

  deinit { if let file { fclose(file) } }

  /// Takes the next bytes of the archive.
  func feed(_ bytes: UnsafeRawBufferPointer) throws {
    bytesIn += Int64(bytes.count)
    try decoder.decode(bytes) { output in
      bytesOut += Int64(output.count)
      try checkSize()
      var rest = output[...]
      while !rest.isEmpty { rest = try take(rest) }
    }
  }

  /// The archive has ended. Returns what the bundle consists of and which files were in the archive itself.
  func finish() throws -> (manifest: BundleManifest, unpacked: Set<String>) {
    guard decoder.isAtFrameEnd, bytesIn > 0, case .ended = state else {
      throw HearthError(.archiveTruncated, "The archive is cut short.", hint: "Upload it again.")
    }
    let unpacked = Set(entries.map(\.path))
    guard let promised else { return (BundleManifest(entries), unpacked) }
    for entry in promised.files where !entry.isBlob && !unpacked.contains(entry.path) {
      throw HearthError(
        .archiveManifestInvalid, "The archive lacks '\(entry.path.printable(limit: 120))', which its manifest names.")
    }
    return (promised, unpacked)
  }

  private func checkSize() throws {
    guard bytesOut <= limits.bytesMax.bytes + Int64(limits.filesMax) * 1024 else {
      throw HearthError(.archiveTooLarge, "The bundle unpacks to more than \(limits.bytesMax.rounded).")
    }
    guard bytesOut <= limits.ratioFreeBytes.bytes || bytesOut / max(1, bytesIn) <= Int64(limits.ratioMax) else {
      throw HearthError(.archiveRatio, "The archive unpacks to more than \(limits.ratioMax) times its size.")
    }
  }

  /// Takes some of the bytes, as the state asks, and returns the rest.
  private func take(_ bytes: Slice<UnsafeRawBufferPointer>) throws -> Slice<UnsafeRawBufferPointer> {
    switch state {
    case .header:
      let rest = gather(bytes, upTo: TarReader.blockSize)
      if gathered.count == TarReader.blockSize { try readHeader() }
      return rest
    case .gathering(let isManifest, let size):
      let padded = (size + TarReader.blockSize - 1) / TarReader.blockSize * TarReader.blockSize
      let rest = gather(bytes, upTo: padded)
      if gathered.count == padded { try readGathered(isManifest: isManifest, size: size) }
      return rest
    case .file(let header, let remaining):
      let count = Int(min(Int64(bytes.count), remaining))
      try write(UnsafeRawBufferPointer(rebasing: bytes.prefix(count)), header)
      state = .file(header, remaining: remaining - Int64(count))
      if remaining == Int64(count) { try endFile(header) }
      return bytes.dropFirst(count)
    case .padding(let remaining):
      let count = min(bytes.count, remaining)
      state = remaining == count ? .header : .padding(remaining - count)
      return bytes.dropFirst(count)
    case .ended:
      guard bytes.allSatisfy({ $0 == 0 }) else {
        throw HearthError(.archiveCorrupt, "The archive is not valid tar data: something follows its end.")
      }
      return bytes.dropFirst(bytes.count)
    }
  }

  private func gather(
    _ bytes: Slice<UnsafeRawBufferPointer>, upTo size: Int
  ) -> Slice<UnsafeRawBufferPointer> {
    let count = min(bytes.count, size - gathered.count)
    gathered.append(contentsOf: bytes.prefix(count))
    return bytes.dropFirst(count)
  }

  private func readHeader() throws {
    defer { gathered.removeAll(keepingCapacity: true) }
    switch try tar.read(gathered[...]) {
    case .end: state = .ended
    case .extended(let size): state = .gathering(isManifest: false, size: size)
    case .entry(let header): try begin(header)
    }
  }

  private func begin(_ header: TarReader.Header) throws {
    memberCount += 1
    guard memberCount <= limits.filesMax else {
      throw HearthError(.archiveTooManyFiles, "The bundle has more than \(limits.filesMax) files.")
    }
    guard !header.isFolder else { return }
    if header.path == BundleManifest.archivePath {
      guard memberCount == 1, header.size <= limits.filesMax * 2048 else {
        throw HearthError(.archiveManifestInvalid, "The archive's manifest does not come first or is too large.")
      }
      state = .gathering(isManifest: true, size: Int(header.size))
      return
    }
    try paths.insert(header.path)
    guard header.size <= limits.bytesMax.bytes else {
      throw HearthError(.archiveTooLarge, "The bundle unpacks to more than \(limits.bytesMax.rounded).")
    }
    if let promised, promised.files.first(where: { $0.path == header.path })?.size != header.size {
      throw HearthError(
        .archiveDigestMismatch,
        "'\(header.path.printable(limit: 120))' is not of the size that the archive's manifest promised.")
    }
    try open(header)
    state = .file(header, remaining: header.size)
    if header.size == 0 { try endFile(header) }
  }

  private func readGathered(isManifest: Bool, size: Int) throws {
    let content = Array(gathered.prefix(size))
    gathered.removeAll(keepingCapacity: true)
    state = .header
    if isManifest { promised = try BundleManifest.decoded(content) } else { try tar.readExtended(content) }
  }

  private func open(_ header: TarReader.Header) throws {
    let path = "\(folder)/\(header.path)"
    if let slash = header.path.lastIndex(of: "/") {
      try FileManager.default.createDirectory(
        atPath: "\(folder)/\(header.path[..<slash])", withIntermediateDirectories: true)
    }
    // "x": the path set has no duplicates, so an existing file would be a defect.
    guard let file = fopen(path, "wxe") else {
      throw HearthError(
        .internalError, "A file of the bundle could not be stored.", cause: String(cString: strerror(errno)))
    }
    self.file = file
    hash = SHA256()
  }

  private func write(_ bytes: UnsafeRawBufferPointer, _ header: TarReader.Header) throws {
    hash.update(bytes)
    guard fwrite(bytes.baseAddress, 1, bytes.count, file!) == bytes.count else {
      throw HearthError(.internalError, "The gateway's disk is full.", cause: String(cString: strerror(errno)))
    }
  }

  private func endFile(_ header: TarReader.Header) throws {
    let isClosed = fclose(file!) == 0
    file = nil
    guard isClosed else {
      throw HearthError(.internalError, "The gateway's disk is full.", cause: String(cString: strerror(errno)))
    }
    let entry = BundleManifest.Entry(
      path: header.path, isExecutable: header.isExecutable, size: header.size, digest: hash.finish())
    if let promised, !promised.files.contains(entry) {
      throw HearthError(
        .archiveDigestMismatch,
        "'\(header.path.printable(limit: 120))' is not the file that the archive's manifest promised.")
    }
    entries.append(entry)
    let padding = TarWriter.padding(Int(header.size % Int64(TarReader.blockSize))).count
    state = padding == 0 ? .header : .padding(padding)
  }
}
