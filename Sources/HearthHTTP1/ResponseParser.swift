import HearthCore
import NIOCore

/// Reads response heads from a worker (RFC 9112, sections 4 and 6). Interim responses (1xx) are skipped.
public struct ResponseParser {
  private var head: HeadParser

  public init(bytesMax: Int) { head = HeadParser(bytesMax: bytesMax) }

  /// Takes the next final head off the buffer; nil when it has not arrived whole.
  ///
  /// - Parameter requestMethod: decides whether the response has a body (`HEAD` has none).
  public mutating func parse(_ buffer: inout ByteBuffer, requestMethod: String) throws -> ResponseHead? {
    while true {
      guard case .head(let length, let message) = try head.parse(&buffer) else { return nil }
      let (status, isHTTP11) = try message.bytes.withUnsafeReadableBytes { raw in
        try statusLine(UnsafeRawBufferPointer(rebasing: raw[0..<length]))
      }
      guard status >= 200 else {
        guard status != 101 else { throw malformed("the worker switched protocols unasked") }
        continue
      }
      let framing = try framing(of: message, status: status, requestMethod: requestMethod)
      let keepsAlive =
        isHTTP11 ? !message.hasToken("connection", "close") : message.hasToken("connection", "keep-alive")
      return ResponseHead(
        message: message, status: status, framing: framing, keepsAlive: keepsAlive && framing != .untilClose)
    }
  }

  private func statusLine(_ line: UnsafeRawBufferPointer) throws -> (status: Int, isHTTP11: Bool) {
    let text = String(decoding: line.prefix(12), as: UTF8.self)
    let isHTTP11 = text.hasPrefix("HTTP/1.1 ")
    guard isHTTP11 || text.hasPrefix("HTTP/1.0 "), line.count == 12 || line.count > 12 && line[12] == ASCII.space,
      let status = Int(text.dropFirst(9)), (100...599).contains(status)
    else { throw malformed("the status line is not valid") }
    return (status, isHTTP11)
  }

  private func framing(of message: MessageHead, status: Int, requestMethod: String) throws -> BodyFraming {
    let length = try message.contentLength()
    let isChunked = try message.isChunked()
    guard !(isChunked && length != nil) else {
      throw malformed("both Content-Length and Transfer-Encoding are given")
    }
    if requestMethod == "HEAD" || status == 204 || status == 304 { return .none }
    if isChunked { return .chunked }
    return length.map { $0 == 0 ? .none : .length($0) } ?? .untilClose
  }
}
