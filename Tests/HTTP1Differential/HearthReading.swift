import HearthHTTP1
import NIOCore

extension HTTP1Reading {
  /// Reads a stream as Hearth's connections do, with the bytes arriving in pieces of `step`.
  public init(hearth bytes: [UInt8], _ side: HTTP1Side, step: Int) {
    var reader = HearthReader(side)
    var rest = bytes[...]
    do {
      while true {
        if try reader.advance() { continue }
        if rest.isEmpty || reader.isEnded { break }
        reader.received.writeBytes(rest.prefix(step))
        rest = rest.dropFirst(step)
      }
      if rest.isEmpty { reader.close() }
    } catch {
      isRefused = true
    }
    messages = reader.messages
  }
}

/// The loop of a connection around head and body parsers.
private struct HearthReader {
  var received = ByteBuffer()
  var messages: [HTTP1Message] = []
  /// Whether the connection takes no further message.
  private(set) var isEnded = false

  private let side: HTTP1Side
  private var requests = RequestParser(bytesMax: 64 * 1024)
  private var responses = ResponseParser(bytesMax: 64 * 1024)
  private var current: (message: HTTP1Message, decoder: BodyDecoder, keepsAlive: Bool)?

  init(_ side: HTTP1Side) { self.side = side }

  /// Reads one step; false when more bytes are needed.
  mutating func advance() throws -> Bool {
    guard !isEnded else { return false }
    guard current != nil else { return try readHead() }
    switch try current!.decoder.next(&received) {
    case .data(let part): current!.message.body += Array(part.readableBytesView)
    case .end: finish()
    case .incomplete: return false
    }
    return true
  }

  private mutating func readHead() throws -> Bool {
    switch side {
    case .request:
      guard let head = try requests.parse(&received) else { return false }
      let message = HTTP1Message(start: "\(head.method) \(head.target)", fields: head.message.all, body: [])
      current = (message, BodyDecoder(head.framing), head.keepsAlive)
    case .response:
      guard let head = try responses.parse(&received, requestMethod: "GET") else { return false }
      let message = HTTP1Message(start: String(head.status), fields: head.message.all, body: [])
      current = (message, BodyDecoder(head.framing), head.keepsAlive)
    }
    return true
  }

  private mutating func finish() {
    guard let done = current else { return }
    messages.append(done.message)
    current = nil
    if !done.keepsAlive { isEnded = true }
  }

  mutating func close() {
    if let current, current.decoder.isCompleteAtClose { finish() }
  }
}

extension MessageHead {
  fileprivate var all: [String] { described.map { "\($0.name.lowercased()): \($0.value)" } }
}
