import HearthCore

/// Reads the headers of a tar stream (POSIX.1-2001 ustar with pax paths), regular files and folders only. Everything
/// else is refused by name.
struct TarReader {
  /// One member: what follows in the stream is `size` bytes of content, padded to 512.
  struct Header: Equatable {
    let path: String
    let isFolder: Bool
    let isExecutable: Bool
    let size: Int64
  }

  enum Member: Equatable {
    case entry(Header)
    /// A pax extended header: `size` bytes of content that belong to the next member.
    case extended(size: Int)
    /// The end-of-archive marker.
    case end
  }

  static let blockSize = 512
  /// 64 KiB: a pax header holds a path of at most 1 KiB and some times.
  static let extendedSizeMax = 64 * 1024

  /// What a pax header said about the member that follows it.
  private var paxPath: String?
  private var paxSize: Int64?

  /// Reads one block of 512 bytes.
  mutating func read(_ block: ArraySlice<UInt8>) throws -> Member {
    let block = Array(block)
    if block.allSatisfy({ $0 == 0 }) { return .end }
    try checkSum(block)
    guard block[257..<262].elementsEqual("ustar".utf8) else { throw corrupt("a member has no ustar header") }
    let size = try number(block[124..<136])
    switch block[156] {
    case UInt8(ascii: "x"):
      guard size <= TarReader.extendedSizeMax else { throw corrupt("a pax header is too large") }
      return .extended(size: Int(size))
    case UInt8(ascii: "g"):
      throw corrupt("global pax headers are not accepted")
    case UInt8(ascii: "0"), 0: return .entry(try header(block, size: paxSize ?? size, isFolder: false))
    case UInt8(ascii: "5"): return .entry(try header(block, size: 0, isFolder: true))
    case UInt8(ascii: "1"), UInt8(ascii: "2"):
      throw HearthError(.archiveLink, "The archive holds a link: '\(try path(block).printable(limit: 120))'.")
    case UInt8(ascii: "3"), UInt8(ascii: "4"), UInt8(ascii: "6"), UInt8(ascii: "7"):
      throw HearthError(
        .archiveSpecialFile, "The archive holds a special file: '\(try path(block).printable(limit: 120))'.")
    default: throw corrupt("a member is of an unknown kind")
    }
  }

  /// Takes the content of a pax header: `LENGTH KEY=VALUE` records.
  mutating func readExtended(_ content: [UInt8]) throws {
    var rest = content[...]
    while let space = rest.firstIndex(of: UInt8(ascii: " ")) {
      guard let length = Int(String(decoding: rest[..<space], as: UTF8.self)), length > 4, length <= rest.count,
        rest[rest.startIndex + length - 1] == UInt8(ascii: "\n")
      else { throw corrupt("a pax record is not valid") }
      let record = rest[(space + 1)..<(rest.startIndex + length - 1)]
      guard let equals = record.firstIndex(of: UInt8(ascii: "=")) else { throw corrupt("a pax record is not valid") }
      let value = record[(equals + 1)...]
      switch String(decoding: record[..<equals], as: UTF8.self) {
      case "path": paxPath = try text(value)
      case "size": paxSize = try Int64(text(value)).flatMap { $0 >= 0 ? $0 : nil } ?? { throw corrupt("a size") }()
      case "linkpath": throw HearthError(.archiveLink, "The archive holds a link.")
      default: break
      }
      rest = rest.dropFirst(length)
    }
    guard rest.isEmpty else { throw corrupt("a pax record is not valid") }
  }

  private mutating func header(_ block: [UInt8], size: Int64, isFolder: Bool) throws -> Header {
    let mode = try number(block[100..<108])
    var path = try paxPath ?? path(block)
    paxPath = nil
    paxSize = nil
    // The forms that `tar -C folder .` writes.
    if path.hasPrefix("./") { path.removeFirst(2) }
    if isFolder, path.hasSuffix("/") { path.removeLast() }
    if !(isFolder && (path.isEmpty || path == ".")) { try BundlePath.check(path) }
    return Header(path: path, isFolder: isFolder, isExecutable: mode & 0o100 != 0, size: size)
  }

  private func path(_ block: [UInt8]) throws -> String {
    let name = try text(field(block[0..<100]))
    // GNU tar leaves the prefix to other uses; its magic is "ustar  ".
    let prefix = block[262] == 0 ? try text(field(block[345..<500])) : ""
    return prefix.isEmpty ? name : "\(prefix)/\(name)"
  }

  /// A NUL-padded field; bytes after the first NUL must be NUL as well, or the path has two readings.
  private func field(_ bytes: ArraySlice<UInt8>) throws -> ArraySlice<UInt8> {
    let text = bytes.prefix { $0 != 0 }
    guard bytes.dropFirst(text.count).allSatisfy({ $0 == 0 }) else {
      throw HearthError(.archivePathInvalid, "A path in the archive holds a NUL.")
    }
    return text
  }

  private func text(_ bytes: ArraySlice<UInt8>) throws -> String {
    guard !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else {
      throw HearthError(.archivePathInvalid, "A path in the archive is not UTF-8 text.")
    }
    return text
  }

  /// An octal number, or a base-256 one as GNU tar writes sizes of 8 GiB and more.
  private func number(_ bytes: ArraySlice<UInt8>) throws -> Int64 {
    if bytes.first == 0x80 {
      guard bytes.dropFirst().dropLast(8).allSatisfy({ $0 == 0 }) else { throw corrupt("a number is too large") }
      let value = bytes.suffix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      guard value <= UInt64(Int64.max) else { throw corrupt("a number is too large") }
      return Int64(value)
    }
    let digits = bytes.drop { $0 == UInt8(ascii: " ") }.prefix { $0 != 0 && $0 != UInt8(ascii: " ") }
    if digits.isEmpty { return 0 }
    guard let value = Int64(String(decoding: digits, as: UTF8.self), radix: 8), value >= 0 else {
      throw corrupt("a number is not octal")
    }
    return value
  }

  private func checkSum(_ block: [UInt8]) throws {
    let stored = try number(block[148..<156])
    var sum: Int64 = 8 * 32
    for (index, byte) in block.enumerated() where !(148..<156).contains(index) { sum += Int64(byte) }
    guard sum == stored else { throw corrupt("a header's check sum is wrong") }
  }

  private func corrupt(_ problem: String) -> HearthError {
    HearthError(.archiveCorrupt, "The archive is not valid tar data: \(problem).")
  }
}
