extension Duration {
  private static let units: [(suffix: String, nanoseconds: Int64)] = [
    ("ms", 1_000_000), ("us", 1_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
  ]

  /// Reads a duration as Hearth's files write it: a number and a unit (`500ms`, `30s`, `1.5h`), or several in a row
  /// (`1h30m`). Nil when the text is not one.
  public init?(hearth text: String) {
    var total = 0.0
    var rest = text[...]
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
      let number = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
      rest = rest.dropFirst(number.count)
      let letters = rest.prefix { $0.isASCII && $0.isLetter }
      rest = rest.dropFirst(letters.count)
      guard let value = Double(number), let unit = Duration.units.first(where: { $0.suffix == letters }) else {
        return nil
      }
      total += value * Double(unit.nanoseconds)
    }
    guard total <= Double(Int64.max / 2) else { return nil }
    self = .nanoseconds(Int64(total))
  }

  /// The duration as Hearth's files write it, in the largest unit that divides it: `90s`, `5m`, `500ms`.
  public var text: String {
    let total = nanoseconds
    guard total != 0 else { return "0s" }
    for suffix in ["d", "h", "m", "s", "ms", "us"] {
      let unit = Duration.units.first { $0.suffix == suffix }!.nanoseconds
      if total % unit == 0 { return "\(total / unit)\(suffix)" }
    }
    return "\(total / 1_000)us"
  }
}

/// A number of bytes, written `512MiB` or `6GiB` in Hearth's files.
public struct ByteSize: Hashable, Sendable, Comparable, CustomStringConvertible {
  private static let units: [(suffix: String, bytes: Int64)] = [
    ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("TiB", 1 << 40), ("GB", 1_000_000_000), ("MB", 1_000_000),
    ("KB", 1_000), ("B", 1),
  ]

  public let bytes: Int64

  public init(bytes: Int64) { self.bytes = bytes }

  /// Reads a number with a binary unit (`512MiB`), a decimal one (`5GB`), or none (bytes). Nil when it is not one.
  public init?(_ text: String) {
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let suffix = text.dropFirst(number.count)
    guard let value = Double(number) else { return nil }
    guard let unit = suffix.isEmpty ? 1 : ByteSize.units.first(where: { $0.suffix == suffix })?.bytes else {
      return nil
    }
    guard value * Double(unit) <= Double(Int64.max / 2) else { return nil }
    bytes = Int64(value * Double(unit))
  }

  /// The size in the largest binary unit that divides it, so that it reads back unchanged: `512MiB`, `1000B`.
  public var description: String {
    for (suffix, unit) in [("TiB", Int64(1) << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    where bytes != 0 && bytes % unit == 0 {
      return "\(bytes / unit)\(suffix)"
    }
    return "\(bytes)B"
  }

  /// The size for people: one decimal in the largest fitting binary unit.
  public var rounded: String {
    for (suffix, unit) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] where bytes >= 1 << unit {
      let tenths = (bytes * 10 + (1 << (unit - 1))) >> unit
      return tenths % 10 == 0 ? "\(tenths / 10) \(suffix)" : "\(tenths / 10).\(tenths % 10) \(suffix)"
    }
    return "\(bytes) B"
  }

  public static func < (left: ByteSize, right: ByteSize) -> Bool { left.bytes < right.bytes }
}

extension ByteSize {
  public static let zero = ByteSize(bytes: 0)

  public static func sum(_ sizes: [ByteSize]) -> ByteSize { ByteSize(bytes: sizes.reduce(0) { $0 + $1.bytes }) }

  public static func kib(_ count: Int64) -> ByteSize { ByteSize(bytes: count << 10) }
  public static func mib(_ count: Int64) -> ByteSize { ByteSize(bytes: count << 20) }
  public static func gib(_ count: Int64) -> ByteSize { ByteSize(bytes: count << 30) }
}
