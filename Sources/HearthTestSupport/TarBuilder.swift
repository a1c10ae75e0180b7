/// Writes tar archives of any kind, hostile ones included.
public struct TarBuilder {
  public private(set) var bytes: [UInt8] = []

  public init() {}

  /// Adds a member. `size` lies about the content's length when given; `patch` changes the header after its check sum
  /// was made, `edit` before.
  public mutating func add(
    _ path: [UInt8], _ content: [UInt8] = [], kind: Character = "0", mode: String = "0000644", size: Int? = nil,
    link: String = "", magic: String = "ustar\u{0}00", edit: (inout [UInt8]) -> Void = { _ in },
    patch: (inout [UInt8]) -> Void = { _ in }
  ) {
    var header = [UInt8](repeating: 0, count: 512)
    func put(_ text: some Collection<UInt8>, at offset: Int) {
      header.replaceSubrange(offset..<(offset + text.count), with: text)
    }
    put(path.prefix(100), at: 0)
    put(Array(mode.utf8), at: 100)
    put(Array("0000000".utf8), at: 108)
    put(Array("0000000".utf8), at: 116)
    let digits = String(size ?? content.count, radix: 8)
    put(Array((String(repeating: "0", count: max(0, 11 - digits.count)) + digits).utf8), at: 124)
    put(Array("00000000000".utf8), at: 136)
    put([UInt8](repeating: 0x20, count: 8), at: 148)
    put(Array(String(kind).utf8), at: 156)
    put(Array(link.utf8.prefix(100)), at: 157)
    put(Array(magic.utf8), at: 257)
    edit(&header)
    let sum = String(header.reduce(0) { $0 + Int($1) }, radix: 8)
    put(Array((String(repeating: "0", count: 6 - sum.count) + sum).utf8) + [0, 0x20], at: 148)
    patch(&header)
    bytes += header + content
    bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }

  public mutating func add(_ path: String, _ content: String = "", kind: Character = "0", link: String = "") {
    add(Array(path.utf8), Array(content.utf8), kind: kind, link: link)
  }

  /// A pax header with these records, for the member that follows.
  public mutating func addPax(_ records: [(key: String, value: String)]) {
    let content = records.map { key, value -> String in
      let rest = " \(key)=\(value)\n"
      var length = rest.utf8.count + 1
      while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
      return "\(length)\(rest)"
    }.joined()
    add(Array("pax".utf8), Array(content.utf8), kind: "x")
  }

  /// Adds bytes as they are.
  public mutating func append(_ raw: [UInt8]) { bytes += raw }

  /// Ends the archive.
  public mutating func end() { bytes += [UInt8](repeating: 0, count: 1024) }
}
