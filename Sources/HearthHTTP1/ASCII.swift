/// Byte classes of HTTP (RFC 9110, section 5.6).
enum ASCII {
  static let space = UInt8(ascii: " ")
  static let tab = UInt8(ascii: "\t")
  static let carriageReturn = UInt8(ascii: "\r")
  static let lineFeed = UInt8(ascii: "\n")
  static let colon = UInt8(ascii: ":")

  /// A set of the characters of ASCII, a bit for each: of 0 to 63 in `low`, of 64 to 127 in `high`.
  private struct Characters {
    let low: UInt64
    let high: UInt64

    @inline(__always)
    func contains(_ byte: UInt8) -> Bool {
      byte < 128 && (byte < 64 ? low : high) &>> (byte & 63) & 1 == 1
    }
  }

  /// Letters, digits and ``!#$%&'*+-.^_`|~``.
  private static let token = Characters(low: 0x03FF_6CFA_0000_0000, high: 0x57FF_FFFF_C7FF_FFFE)
  /// Printable characters but ``"<>\^`{|}#``.
  private static let target = Characters(low: 0xAFFF_FFF2_0000_0000, high: 0x47FF_FFFE_AFFF_FFFF)

  @inline(__always)
  static func isToken(_ byte: UInt8) -> Bool { token.contains(byte) }

  @inline(__always)
  static func isFieldValue(_ byte: UInt8) -> Bool { byte >= space && byte != 0x7F || byte == tab }

  @inline(__always)
  static func isTarget(_ byte: UInt8) -> Bool { target.contains(byte) }

  /// Whether any of eight bytes is below 0x20 or is 0x7F (Anderson, Bit Twiddling Hacks). True for some that are not,
  /// behind one that is.
  @inline(__always)
  static func holdsControl(_ word: UInt64) -> Bool {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let delete = word ^ (ones &* 0x7F)
    return ((word &- ones &* 0x20) & ~word | (delete &- ones) & ~delete) & (ones &* 0x80) != 0
  }

  @inline(__always)
  static func lower(_ byte: UInt8) -> UInt8 {
    byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
  }

  /// Whether the bytes begin with a text.
  static func begins(_ raw: UnsafeRawBufferPointer, with text: StaticString) -> Bool {
    guard raw.count >= text.utf8CodeUnitCount else { return false }
    for offset in 0..<text.utf8CodeUnitCount where raw[offset] != text.utf8Start[offset] { return false }
    return true
  }

  /// Compares the bytes at `start` with a lower-case name, without case; the caller has checked the length.
  static func equalsIgnoringCase(_ raw: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
    let wanted = name.utf8Start
    for offset in 0..<name.utf8CodeUnitCount where lower(raw[start + offset]) != wanted[offset] { return false }
    return true
  }
}
