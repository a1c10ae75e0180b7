/// Writes tar headers (ustar, with a pax header where a path or size does not fit) that depend on nothing but the
/// files: no owner, no time.
enum TarWriter {
  static func header(path: String, isExecutable: Bool, size: Int64) -> [UInt8] {
    let fits = path.utf8.count <= 100 && size < 0o77777777777
    if fits { return block(path: path, mode: isExecutable ? 0o755 : 0o644, size: size, kind: "0") }
    let records = record("path", path) + record("size", String(size))
    return block(path: "pax", mode: 0o644, size: Int64(records.count), kind: "x") + records + padding(records.count)
      + block(
        path: String(decoding: path.utf8.prefix(90), as: UTF8.self), mode: isExecutable ? 0o755 : 0o644,
        size: min(size, 0o77777777777), kind: "0")
  }

  /// What fills the last block of `count` bytes of content.
  static func padding(_ count: Int) -> [UInt8] {
    [UInt8](repeating: 0, count: (TarReader.blockSize - count % TarReader.blockSize) % TarReader.blockSize)
  }

  /// Two empty blocks.
  static let end = [UInt8](repeating: 0, count: 2 * TarReader.blockSize)

  private static func record(_ key: String, _ value: String) -> [UInt8] {
    // The record's length counts its own digits.
    let rest = " \(key)=\(value)\n"
    var length = rest.utf8.count + 1
    while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
    return Array("\(length)\(rest)".utf8)
  }

  private static func block(path: String, mode: Int, size: Int64, kind: Character) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: TarReader.blockSize)
    func put(_ text: String, at offset: Int) {
      block.replaceSubrange(offset..<(offset + text.utf8.count), with: text.utf8)
    }
    func octal(_ value: Int64, width: Int) -> String {
      let digits = String(value, radix: 8)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    put(path, at: 0)
    put(octal(Int64(mode), width: 7), at: 100)
    put(octal(0, width: 7), at: 108)
    put(octal(0, width: 7), at: 116)
    put(octal(size, width: 11), at: 124)
    put(octal(0, width: 11), at: 136)
    put("        ", at: 148)
    put(String(kind), at: 156)
    put("ustar", at: 257)
    put("00", at: 263)
    let sum = block.reduce(0) { $0 + Int64($1) }
    put(octal(sum, width: 6), at: 148)
    block[154] = 0
    return block
  }
}
