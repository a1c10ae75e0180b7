import HearthCore
import NIOCore

/// Reads request heads from a client, one after another (RFC 9112, sections 3 and 6).
public struct RequestParser {
  private var head: HeadParser

  /// - Parameter bytesMax: the largest head accepted, in bytes.
  public init(bytesMax: Int) { head = HeadParser(bytesMax: bytesMax) }

  /// Takes the next head off the buffer; nil when it has not arrived whole. Throws what to answer the client.
  public mutating func parse(_ buffer: inout ByteBuffer) throws -> RequestHead? {
    skipLeadingLineBreak(&buffer)
    guard case .head(let length, let message) = try head.parse(&buffer) else { return nil }
    let line = try message.bytes.withUnsafeReadableBytes { raw throws -> RequestLine in
      try RequestLine(UnsafeRawBufferPointer(rebasing: raw[0..<length]))
    }
    try checkHost(message, isHTTP11: line.isHTTP11)
    let framing = try framing(of: message, isHTTP11: line.isHTTP11)
    return RequestHead(
      message: message, method: line.method, target: line.target, isHTTP11: line.isHTTP11, framing: framing,
      keepsAlive: line.isHTTP11
        ? !message.hasToken("connection", "close") : message.hasToken("connection", "keep-alive"),
      expectsContinue: try line.isHTTP11 && framing != .none && expectsContinue(message))
  }

  /// One empty line before a request is allowed to robust servers (RFC 9112, section 2.2).
  private func skipLeadingLineBreak(_ buffer: inout ByteBuffer) {
    if buffer.readableBytes >= 2, buffer.getInteger(at: buffer.readerIndex, as: UInt16.self) == 0x0D0A {
      buffer.moveReaderIndex(forwardBy: 2)
    }
  }

  private func checkHost(_ message: MessageHead, isHTTP11: Bool) throws {
    var count = 0
    for index in message.fields.indices where message.nameMatches(index, "host") {
      count += 1
      let isValid = message.value(index).utf8.allSatisfy { byte in
        ASCII.isTarget(byte) && byte != UInt8(ascii: "/") && byte != UInt8(ascii: "?") && byte != UInt8(ascii: "@")
          && byte != UInt8(ascii: ",")
      }
      guard isValid else { throw malformed("Host is not valid") }
    }
    guard count <= 1 else { throw malformed("Host stands twice") }
    guard count == 1 || !isHTTP11 else { throw malformed("Host is missing") }
  }

  private func framing(of message: MessageHead, isHTTP11: Bool) throws -> BodyFraming {
    let length = try message.contentLength()
    guard try message.isChunked() else { return length.map { $0 == 0 ? .none : .length($0) } ?? .none }
    guard length == nil else { throw malformed("both Content-Length and Transfer-Encoding are given") }
    guard isHTTP11 else { throw malformed("HTTP/1.0 has no Transfer-Encoding") }
    return .chunked
  }

  private func expectsContinue(_ message: MessageHead) throws -> Bool {
    guard let value = message.first("expect") else { return false }
    guard value.lowercased() == "100-continue" else {
      throw HearthError(.requestMalformed, "The expectation in Expect is not known.")
    }
    return true
  }
}

/// Method, target and version of a request's first line.
private struct RequestLine {
  let method: String
  let target: String
  let isHTTP11: Bool

  init(_ line: UnsafeRawBufferPointer) throws {
    var index = 0
    while index < line.count, ASCII.isToken(line[index]) { index += 1 }
    guard index > 0, index <= 32, index < line.count, line[index] == ASCII.space else {
      throw malformed("the method is not valid")
    }
    method = String(decoding: line[0..<index], as: UTF8.self)
    let start = index + 1
    index = start
    while index < line.count, ASCII.isTarget(line[index]) { index += 1 }
    guard index > start, index < line.count, line[index] == ASCII.space else {
      throw malformed("the request target is not valid")
    }
    guard line[start] == UInt8(ascii: "/") || (index == start + 1 && line[start] == UInt8(ascii: "*")) else {
      throw malformed("the request target is not in origin form")
    }
    target = String(decoding: line[start..<index], as: UTF8.self)
    switch String(decoding: line[(index + 1)...], as: UTF8.self) {
    case "HTTP/1.1": isHTTP11 = true
    case "HTTP/1.0": isHTTP11 = false
    default: throw malformed("the protocol version is not HTTP/1.1 or HTTP/1.0")
    }
  }
}
