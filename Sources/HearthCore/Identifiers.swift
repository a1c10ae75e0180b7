/// The name of a function: 1 to 63 lower-case letters, digits and dashes, starting and ending with a letter or digit.
///
/// The form is that of a DNS label (RFC 1123), so that a name is safe in a path, a file name and a host name alike.
public struct FunctionName: Hashable, Sendable, Comparable, CustomStringConvertible {
  public static let lengthMax = 63

  public let rawValue: String

  public init(_ text: String) throws {
    guard FunctionName.isValid(text) else {
      throw HearthError(
        .nameInvalid, "'\(text.printable(limit: 80))' is not a function name.",
        hint: "Use 1 to 63 lower-case letters, digits and dashes, starting and ending with a letter or digit.")
    }
    rawValue = text
  }

  public static func isValid(_ text: String) -> Bool {
    let bytes = text.utf8
    guard (1...lengthMax).contains(bytes.count), bytes.first != UInt8(ascii: "-"), bytes.last != UInt8(ascii: "-")
    else { return false }
    return bytes.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"): true
      default: false
      }
    }
  }

  public var description: String { rawValue }

  public static func < (left: FunctionName, right: FunctionName) -> Bool { left.rawValue < right.rawValue }
}

/// A SHA-256 digest in lower-case hexadecimal: the address of a blob or of a bundle.
public struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// 64 hexadecimal digits: 256 bits at 4 bits each.
  public static let digitCount = 64

  public let hex: String

  public init(_ text: String) throws {
    guard text.utf8.count == Digest.digitCount, text.utf8.allSatisfy(\.isLowerHexDigit) else {
      throw HearthError(
        .digestInvalid, "'\(text.printable(limit: 80))' is not a SHA-256 digest.",
        hint: "Write 64 lower-case hexadecimal digits, as sha256sum prints them.")
    }
    hex = text
  }

  /// The first 12 digits: enough to tell the versions of one function apart.
  public var short: String { String(hex.prefix(12)) }

  public var description: String { hex }

  public static func < (left: Digest, right: Digest) -> Bool { left.hex < right.hex }
}

/// One worker, unique within the life of a gateway; or a process of its host's own, that workers come from or share.
public struct WorkerID: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// 2^62: beyond the number of any worker that is asked for.
  private static let firstOwn: UInt64 = 1 << 62

  public let rawValue: UInt64

  public init(_ rawValue: UInt64) { self.rawValue = rawValue }

  /// The id of a host's n-th own process.
  public static func own(_ number: UInt64) -> WorkerID { WorkerID(firstOwn + number) }

  /// Reads what `description` wrote; nil for anything else.
  public init?(_ text: String) {
    guard let number = UInt64(text.dropFirst(2)), number < WorkerID.firstOwn else { return nil }
    switch text.prefix(2) {
    case "w-": rawValue = number
    case "p-": rawValue = WorkerID.firstOwn + number
    default: return nil
    }
  }

  public var description: String {
    rawValue < WorkerID.firstOwn ? "w-\(rawValue)" : "p-\(rawValue - WorkerID.firstOwn)"
  }

  public static func < (left: WorkerID, right: WorkerID) -> Bool { left.rawValue < right.rawValue }
}

/// One invocation, unique within the life of a gateway.
public struct InvocationID: Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64

  public init(_ rawValue: UInt64) { self.rawValue = rawValue }

  public var description: String { "i-\(rawValue)" }
}

extension UInt8 {
  var isLowerHexDigit: Bool {
    switch self {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): true
    default: false
    }
  }
}
