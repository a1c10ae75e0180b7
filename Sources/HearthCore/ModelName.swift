/// The name of a model within its function: 1 to 128 letters, digits, dots, underscores and dashes, starting with a
/// letter or digit.
///
/// The form is that of a file name without surprises, so that a name is safe in a path and in a header field.
public struct ModelName: Hashable, Sendable, Comparable, CustomStringConvertible {
  public static let lengthMax = 128

  public let rawValue: String

  public init(_ text: some StringProtocol) throws {
    guard ModelName.isValid(text) else {
      throw HearthError(
        .nameInvalid, "'\(String(text).printable(limit: 80))' is not a model name.",
        hint: "Use 1 to 128 letters, digits, '.', '_' and '-', starting with a letter or digit.")
    }
    rawValue = String(text)
  }

  public static func isValid(_ text: some StringProtocol) -> Bool {
    let bytes = text.utf8
    guard (1...lengthMax).contains(bytes.count), bytes.first.map(isLetterOrDigit) == true else { return false }
    return bytes.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
      default: isLetterOrDigit(byte)
      }
    }
  }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: false
    }
  }

  public var description: String { rawValue }

  public static func < (left: ModelName, right: ModelName) -> Bool { left.rawValue < right.rawValue }
}
