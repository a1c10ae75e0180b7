import HearthCore
import NIOCore

/// Finds and indexes the head of an HTTP/1.1 message. Strict: one sequence of bytes has one meaning or is refused.
///
/// Refused are bare CR or LF, NUL and other control characters, obsolete line folding, white space before a colon,
/// and names that are not tokens (RFC 9112, sections 2.2 and 5; RFC 9110, section 5).
struct HeadParser {
  /// What a parser found in the bytes so far.
  enum Result {
    case incomplete
    case head(firstLineLength: Int, MessageHead)
  }

  let bytesMax: Int
  let fieldsMax: Int
  /// How many bytes were searched for the end already, so that a slow sender costs no rescans.
  private var searched = 0

  init(bytesMax: Int, fieldsMax: Int = 128) {
    self.bytesMax = bytesMax
    self.fieldsMax = fieldsMax
  }

  mutating func parse(_ buffer: inout ByteBuffer) throws -> Result {
    guard let length = findEnd(of: buffer) else {
      searched = max(0, buffer.readableBytes - 3)
      if buffer.readableBytes >= bytesMax { throw tooLarge }
      return .incomplete
    }
    if length > bytesMax { throw tooLarge }
    searched = 0
    let bytes = buffer.readSlice(length: length)!
    // A slice starts its own reader index at 0, so that offsets into it are stable.
    return try index(bytes)
  }

  private var tooLarge: HearthError {
    HearthError(
      .headTooLarge, "The message head is larger than \(ByteSize(bytes: Int64(bytesMax)).rounded).",
      hint: "Send fewer or shorter header fields.")
  }

  /// The length of the head including its empty line, or nil when that has not arrived.
  private func findEnd(of buffer: ByteBuffer) -> Int? {
    buffer.withUnsafeReadableBytes { raw in
      let limit = min(raw.count, bytesMax + 4)
      guard limit >= 4 else { return nil }
      // Boyer-Moore on CR LF CR LF: a byte that is neither rules out the next three places as well.
      var index = searched + 3
      while index < limit {
        switch raw[index] {
        case ASCII.lineFeed:
          if raw[index - 1] == ASCII.carriageReturn && raw[index - 2] == ASCII.lineFeed
            && raw[index - 3] == ASCII.carriageReturn
          {
            return index + 1
          }
          index += 2
        case ASCII.carriageReturn: index += 1
        default: index += 4
        }
      }
      return nil
    }
  }

  private func index(_ bytes: ByteBuffer) throws -> Result {
    var fields: [MessageHead.Field] = []
    fields.reserveCapacity(12)
    let firstLineLength = try bytes.withUnsafeReadableBytes { raw throws -> Int in
      let firstLineLength = try lineLength(raw, from: 0)
      var start = firstLineLength + 2
      while raw[start] != ASCII.carriageReturn {
        if fields.count == fieldsMax { throw tooLarge }
        let length = try lineLength(raw, from: start)
        fields.append(try field(raw, start, length))
        start += length + 2
      }
      guard start + 2 == raw.count else { throw malformed("a line feed or carriage return stands alone") }
      return firstLineLength
    }
    return .head(firstLineLength: firstLineLength, MessageHead(bytes: bytes, fields: fields))
  }

  /// The length of the line at `start` without its CRLF. Every line of a found head ends in one.
  private func lineLength(_ raw: UnsafeRawBufferPointer, from start: Int) throws -> Int {
    var index = start
    while index + 8 <= raw.count, !ASCII.holdsControl(raw.loadUnaligned(fromByteOffset: index, as: UInt64.self)) {
      index += 8
    }
    while index < raw.count {
      let byte = raw[index]
      if byte < 0x20 || byte == 0x7F {
        if byte == ASCII.carriageReturn, index + 1 < raw.count, raw[index + 1] == ASCII.lineFeed {
          return index - start
        }
        if byte != ASCII.tab { throw malformed("a control character stands in the head") }
      }
      index += 1
    }
    throw malformed("a line has no end")
  }

  private func field(_ raw: UnsafeRawBufferPointer, _ start: Int, _ length: Int) throws -> MessageHead.Field {
    let end = start + length
    var colon = start
    while colon < end, ASCII.isToken(raw[colon]) { colon += 1 }
    guard colon > start, colon < end, raw[colon] == ASCII.colon else {
      throw malformed("a header field has no valid name")
    }
    var valueStart = colon + 1
    var valueEnd = end
    while valueStart < valueEnd, raw[valueStart] == ASCII.space || raw[valueStart] == ASCII.tab { valueStart += 1 }
    while valueEnd > valueStart, raw[valueEnd - 1] == ASCII.space || raw[valueEnd - 1] == ASCII.tab { valueEnd -= 1 }
    // A value may hold what a line may hold, which was checked.
    return MessageHead.Field(
      nameStart: UInt32(start), nameLength: UInt32(colon - start), valueStart: UInt32(valueStart),
      valueLength: UInt32(valueEnd - valueStart))
  }
}

/// The error for bytes that are not HTTP as Hearth accepts it.
func malformed(_ problem: String) -> HearthError {
  HearthError(.requestMalformed, "This is not a valid HTTP/1.1 message: \(problem).")
}

extension MessageHead {
  /// The body length that `Content-Length` gives: nil when absent. Repeated, signed or listed values are refused.
  func contentLength() throws -> Int? {
    var found: Int?
    for index in fields.indices where nameMatches(index, "content-length") {
      guard found == nil else { throw malformed("Content-Length stands twice") }
      try checkPlain(index)
      guard let number = number(index) else { throw malformed("Content-Length is not a plain number") }
      found = number
    }
    return found
  }

  /// Whether a tab stands anywhere in a field of this name. Readers differ in whether `keep-alive` and a tab keep a
  /// connection of HTTP/1.0 open, so for Hearth they do not.
  func hasTab(_ name: StaticString) -> Bool {
    fields.indices.contains { index in
      guard nameMatches(index, name) else { return false }
      let start = Int(fields[index].nameStart + fields[index].nameLength)
      return bytes.withUnsafeReadableBytes { raw in
        raw[start...].prefix { $0 != ASCII.carriageReturn }.contains(ASCII.tab)
      }
    }
  }

  /// A tab behind the value of a field that delimits the message is refused by other readers, though it is white space
  /// elsewhere.
  private func checkPlain(_ index: Int) throws {
    let field = fields[index]
    var end = Int(field.valueStart + field.valueLength)
    let isPlain = bytes.withUnsafeReadableBytes { raw in
      while raw[end] == ASCII.space { end += 1 }
      return raw[end] == ASCII.carriageReturn
    }
    guard isPlain else { throw malformed("a tab stands behind a field that delimits the message") }
  }

  /// The value of a field as a number of 1 to 18 digits; nil when it is anything else.
  private func number(_ index: Int) -> Int? {
    let field = fields[index]
    guard (1...18).contains(field.valueLength) else { return nil }
    return bytes.withUnsafeReadableBytes { raw in
      var number = 0
      for place in Int(field.valueStart)..<Int(field.valueStart + field.valueLength) {
        guard (0x30...0x39).contains(raw[place]) else { return nil }
        number = number * 10 + Int(raw[place] - 0x30)
      }
      return number
    }
  }

  /// Whether the body is chunked. Any other transfer coding, and chunked more than once, is refused.
  func isChunked() throws -> Bool {
    var found = false
    for index in fields.indices where nameMatches(index, "transfer-encoding") {
      guard !found else { throw malformed("Transfer-Encoding stands twice") }
      try checkPlain(index)
      guard value(index).lowercased() == "chunked" else {
        throw HearthError(
          .notImplemented, "The transfer coding of this message is not supported.",
          hint: "Send the body with Content-Length or with 'Transfer-Encoding: chunked'.")
      }
      found = true
    }
    return found
  }
}
