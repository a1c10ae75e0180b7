import Foundation

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
