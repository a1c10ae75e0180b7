import HearthCore
import NIOCore

/// Reads request heads from a client, one after another (RFC 9112, sections 3 and 6).
public struct RequestParser {
  private var head: HeadParser

  /// - Parameter bytesMax: the largest head accepted, in bytes.
  public init(bytesMax: Int) { head = HeadParser(bytesMax: bytesMax) }

  /// Takes the next head off the buffer; nil when it has not arrived whole. Throws what to answer the client.
  public mutating func parse(_ buffer: inout ByteBuffer) throws -> RequestHead? {
    skipLeadingLineBreaks(&buffer)
    guard case .head(let length, let message) = try head.parse(&buffer) else { return nil }
    let line = try message.bytes.withUnsafeReadableBytes { raw throws -> RequestLine in
      try RequestLine(UnsafeRawBufferPointer(rebasing: raw[0..<length]))
    }
    try checkHost(message, isHTTP11: line.isHTTP11, authority: line.authority)
    let framing = try framing(of: message, isHTTP11: line.isHTTP11)
    return RequestHead(
      message: message, method: line.method, target: line.target, isHTTP11: line.isHTTP11, framing: framing,
      keepsAlive: line.isHTTP11
        ? !message.hasToken("connection", "close")
        : message.hasToken("connection", "keep-alive") && !message.hasTab("connection"),
      expectsContinue: try line.isHTTP11 && framing != .none && expectsContinue(message),
      upgrade: line.isHTTP11 && framing == .none ? upgrade(message) : nil)
  }

  /// What the client would switch to. Not HTTP/2: its requests would pass by all that a gateway checks.
  private func upgrade(_ message: MessageHead) -> String? {
    guard message.hasToken("connection", "upgrade"), !message.hasToken("upgrade", "h2c") else { return nil }
    return message.first("upgrade")
  }

  /// Empty lines before a request are ignored by robust servers (RFC 9112, section 2.2).
  private func skipLeadingLineBreaks(_ buffer: inout ByteBuffer) {
    while buffer.readableBytes >= 2, buffer.getInteger(at: buffer.readerIndex, as: UInt16.self) == 0x0D0A {
      buffer.moveReaderIndex(forwardBy: 2)
    }
  }

  /// One Host, well-formed, and the same as in a target in absolute form (RFC 9112, section 3.2).
  private func checkHost(_ message: MessageHead, isHTTP11: Bool, authority: String?) throws {
    var count = 0
    for index in message.fields.indices where message.nameMatches(index, "host") {
      count += 1
      let isValid = message.value(index).utf8.allSatisfy { byte in
        ASCII.isTarget(byte) && byte != UInt8(ascii: "/") && byte != UInt8(ascii: "?") && byte != UInt8(ascii: "@")
          && byte != UInt8(ascii: ",")
      }
      guard isValid else { throw malformed("Host is not valid") }
      if let authority, authority.lowercased() != message.value(index).lowercased() {
        throw malformed("Host differs from the request target's")
      }
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
  /// What a gateway for functions can be asked for: RFC 9110's methods but CONNECT and TRACE, PATCH (RFC 5789), and
  /// WebDAV's (RFC 4918, RFC 3253, RFC 5323).
  private static let methods = [
    "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND",
    "PROPPATCH", "UNLOCK", "REPORT", "SEARCH",
  ]
  private static let scheme = "http://"

  let method: String
  /// Path and query.
  let target: String
  /// The host and port of a target in absolute form.
  let authority: String?
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
    (authority, target) = try RequestLine.split(String(decoding: line[start..<index], as: UTF8.self))
    let version = UnsafeRawBufferPointer(rebasing: line[(index + 1)...])
    isHTTP11 = version.count == 8 && ASCII.begins(version, with: "HTTP/1.1")
    guard isHTTP11 || version.count == 8 && ASCII.begins(version, with: "HTTP/1.0") else {
      throw malformed("the protocol version is not HTTP/1.1 or HTTP/1.0")
    }
    guard RequestLine.methods.contains(method) else {
      throw HearthError(.notImplemented, "The request's method is not known here.", hint: "Use GET or POST.")
    }
  }

  /// Cuts a target in absolute form into authority and path; one in origin form, or `*`, has no authority.
  private static func split(_ target: String) throws -> (authority: String?, target: String) {
    if target.utf8.first == UInt8(ascii: "/") || target == "*" { return (nil, target) }
    guard target.utf8.count > scheme.utf8.count, target.prefix(scheme.utf8.count).lowercased() == scheme else {
      throw malformed("the request target is neither a path nor an http:// address")
    }
    let rest = target.dropFirst(scheme.utf8.count)
    let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
    guard end > rest.startIndex else { throw malformed("the request target has no host") }
    let path = String(rest[end...])
    return (String(rest[..<end]), path.hasPrefix("/") ? path : "/" + path)
  }
}
