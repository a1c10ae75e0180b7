/// Byte classes of HTTP (RFC 9110, section 5.6).
enum ASCII {
  static let space = UInt8(ascii: " ")
  static let tab = UInt8(ascii: "\t")
  static let carriageReturn = UInt8(ascii: "\r")
  static let lineFeed = UInt8(ascii: "\n")
  static let colon = UInt8(ascii: ":")

  /// For each byte: 1 when it may stand in a token, 2 when in a field value, 4 when in a request target.
  private static let classes: [UInt8] = (0...255).map { value in
    let byte = UInt8(value)
    var result: UInt8 = 0
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      result |= 1
    default:
      if "!#$%&'*+-.^_`|~".utf8.contains(byte) { result |= 1 }
    }
    if byte == tab || byte == space || (byte > 0x20 && byte != 0x7F) { result |= 2 }
    if byte > 0x20 && byte < 0x7F && !"\"<>\\^`{|}#".utf8.contains(byte) { result |= 4 }
    return result
  }

  @inline(__always)
  static func isToken(_ byte: UInt8) -> Bool { classes[Int(byte)] & 1 != 0 }

  @inline(__always)
  static func isFieldValue(_ byte: UInt8) -> Bool { classes[Int(byte)] & 2 != 0 }

  @inline(__always)
  static func isTarget(_ byte: UInt8) -> Bool { classes[Int(byte)] & 4 != 0 }

  @inline(__always)
  static func lower(_ byte: UInt8) -> UInt8 {
    byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
  }

  /// Compares the bytes at `start` with a lower-case name, without case; the caller has checked the length.
  static func equalsIgnoringCase(_ raw: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
    let wanted = name.utf8Start
    for offset in 0..<name.utf8CodeUnitCount where lower(raw[start + offset]) != wanted[offset] { return false }
    return true
  }
}
