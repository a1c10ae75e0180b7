import HearthCore
import NIOCore

/// Reads response heads from a worker (RFC 9112, sections 4 and 6). Interim responses (1xx) are skipped.
public struct ResponseParser {
  private var head: HeadParser

  public init(bytesMax: Int) { head = HeadParser(bytesMax: bytesMax) }

  /// Takes the next final head off the buffer; nil when it has not arrived whole.
  ///
  /// - Parameters:
  ///   - requestMethod: decides whether the response has a body (`HEAD` has none).
  ///   - allowsUpgrade: whether the request asked for another protocol. What follows the head is that protocol's then.
  public mutating func parse(
    _ buffer: inout ByteBuffer, requestMethod: String, allowsUpgrade: Bool = false
  ) throws -> ResponseHead? {
    while true {
      guard case .head(let length, let message) = try head.parse(&buffer) else { return nil }
      let (status, isHTTP11) = try message.bytes.withUnsafeReadableBytes { raw in
        try statusLine(UnsafeRawBufferPointer(rebasing: raw[0..<length]))
      }
      guard status >= 200 else {
        guard status != 101 || allowsUpgrade else { throw malformed("the worker switched protocols unasked") }
        guard isHTTP11, !message.hasToken("connection", "close") else {
          throw malformed("an interim response ends its connection")
        }
        guard !message.contains("content-length"), !message.contains("transfer-encoding") else {
          throw malformed("an interim response has no body")
        }
        if status == 101 {
          return ResponseHead(
            message: message, status: status, framing: .untilClose, keepsAlive: false, announcesWithheldBody: false)
        }
        continue
      }
      let declared = try declaredFraming(of: message)
      let isBodyless = requestMethod == "HEAD" || status == 204 || status == 304
      let framing = isBodyless ? .none : declared ?? .untilClose
      let keepsAlive =
        isHTTP11
        ? !message.hasToken("connection", "close")
        : message.hasToken("connection", "keep-alive") && !message.hasTab("connection")
      return ResponseHead(
        message: message, status: status, framing: framing, keepsAlive: keepsAlive && framing != .untilClose,
        announcesWithheldBody: isBodyless && declared != nil && declared != BodyFraming.none)
    }
  }

  private func statusLine(_ line: UnsafeRawBufferPointer) throws -> (status: Int, isHTTP11: Bool) {
    let isHTTP11 = ASCII.begins(line, with: "HTTP/1.1 ")
    guard isHTTP11 || ASCII.begins(line, with: "HTTP/1.0 "),
      line.count == 12 || line.count > 12 && line[12] == ASCII.space,
      line[9..<12].allSatisfy({ (0x30...0x39).contains($0) })
    else { throw malformed("the status line is not valid") }
    let status = line[9..<12].reduce(0) { $0 * 10 + Int($1 - 0x30) }
    guard (100...599).contains(status) else { throw malformed("the status line is not valid") }
    return (status, isHTTP11)
  }

  /// What the fields say of the body; nil when they say nothing.
  private func declaredFraming(of message: MessageHead) throws -> BodyFraming? {
    let length = try message.contentLength()
    let isChunked = try message.isChunked()
    guard !(isChunked && length != nil) else {
      throw malformed("both Content-Length and Transfer-Encoding are given")
    }
    if isChunked { return .chunked }
    return length.map { $0 == 0 ? BodyFraming.none : .length($0) }
  }
}
