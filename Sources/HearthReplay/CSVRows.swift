import Foundation
import HearthCore

/// The rows of a CSV file (RFC 4180), one after another; empty lines are skipped.
struct CSVRows {
  struct Row {
    /// Counts from 1, the header included.
    let line: Int
    let fields: [String]
  }

  private let bytes: [UInt8]
  private var position = 0
  private var line = 0

  init(_ data: Data) {
    bytes = [UInt8](data)
    // A byte order mark, as some programs write.
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
  }

  mutating func next() -> Row? {
    while position < bytes.count {
      line += 1
      let first = line
      let fields = readFields()
      if fields != [""] { return Row(line: first, fields: fields) }
    }
    return nil
  }

  private mutating func readFields() -> [String] {
    var fields: [String] = []
    var field: [UInt8] = []
    var isQuoted = false
    while position < bytes.count {
      let byte = bytes[position]
      position += 1
      switch byte {
      case UInt8(ascii: "\"") where isQuoted && position < bytes.count && bytes[position] == byte:
        field.append(byte)
        position += 1
      // Quotes count at a field's ends only; a stray one is text.
      case UInt8(ascii: "\"") where isQuoted || field.isEmpty: isQuoted.toggle()
      case UInt8(ascii: ",") where !isQuoted:
        fields.append(String(decoding: field, as: UTF8.self))
        field.removeAll(keepingCapacity: true)
      case UInt8(ascii: "\n"):
        if isQuoted {
          line += 1
          field.append(byte)
        } else {
          if field.last == UInt8(ascii: "\r") { field.removeLast() }
          fields.append(String(decoding: field, as: UTF8.self))
          return fields
        }
      default: field.append(byte)
      }
    }
    fields.append(String(decoding: field, as: UTF8.self))
    return fields
  }
}

/// Times as traces write them.
enum TraceTime {
  /// Reads seconds since 1970, or `YYYY-MM-DD HH:MM:SS.fff` with a blank or `T` and an optional `Z`. Nil for others.
  static func parse(_ text: String) -> Duration? {
    if let seconds = Double(text) { return seconds >= 0 && seconds < 1e11 ? .seconds(seconds) : nil }
    let parts = text.split(omittingEmptySubsequences: false) { $0 == " " || $0 == "T" }
    guard parts.count == 2 else { return nil }
    let date = parts[0].split(separator: "-").compactMap { Int64($0) }
    let clock = parts[1].drop(while: { $0 == " " }).split(separator: ":").map(String.init)
    guard date.count == 3, (1...9_999).contains(date[0]), (1...12).contains(date[1]), (1...31).contains(date[2]),
      clock.count == 3,
      let hour = Int64(clock[0]), let minute = Int64(clock[1]),
      let second = Double(clock[2].hasSuffix("Z") ? String(clock[2].dropLast()) : clock[2]),
      (0...23).contains(hour), (0...59).contains(minute), second >= 0, second < 61
    else { return nil }
    let day = CivilDate.daysSinceEpoch(year: date[0], month: date[1], day: date[2])
    return .seconds(day * 86_400 + hour * 3_600 + minute * 60) + .seconds(second)
  }
}
