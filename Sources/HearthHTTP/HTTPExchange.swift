import HearthCore
import HearthHTTP1
import NIOCore

/// One request and its response on a client's connection.
final class HTTPExchange: ClientExchange {
  /// 16 KiB: below, copying a body behind its head is cheaper than a second write.
  private static let coalescedMax = 16 * 1024

  let request: RequestHead
  let target: String
  let requestID: String
  let arrival: HearthInstant
  /// Who answers; nil once it has, or the client is gone.
  private(set) var receiver: (any ExchangeReceiver)?
  private(set) var requestEnded: Bool

  private let connection: HTTPConnectionHandler
  private var decoder: BodyDecoder
  private var bodyBytes: Int64 = 0
  private var isEnded = false
  /// How the response is delimited; nil until its head was written.
  private var framing: BodyFraming?
  private var keepsAlive = false
  /// The head, until the first bytes of the body can go with it.
  private var pending: ByteBuffer?

  init(_ request: RequestHead, target: String, connection: HTTPConnectionHandler) {
    self.request = request
    self.target = target
    self.connection = connection
    requestID = connection.services.nextRequestID()
    arrival = connection.services.now
    decoder = BodyDecoder(request.framing)
    requestEnded = request.framing == .none
  }

  var eventLoop: any EventLoop { connection.channel.eventLoop }

  var bodyTooLarge: HearthError {
    HearthError(
      .bodyTooLarge, "The request's body is larger than \(connection.limits.bodyMax.rounded).",
      hint: "Send less, or raise body-max in hearth.yaml.")
  }

  // The request.

  /// Names who answers, unless it has done so already.
  func begin(with receiver: any ExchangeReceiver) {
    if !isEnded { self.receiver = receiver }
  }

  /// The client is gone, or sends what nobody can read.
  func abandon() {
    let receiver = receiver
    self.receiver = nil
    receiver?.clientLeft()
  }

  /// Takes what has arrived of the body off the buffer; nil when nobody wants it or the request is whole.
  func nextPart(of received: inout ByteBuffer) throws -> BodyDecoder.Part? {
    guard !requestEnded, receiver != nil else { return nil }
    return try decoder.next(&received)
  }

  /// Hands a part of the body on; false when it was the last, or more must arrive first.
  func handOn(_ part: BodyDecoder.Part) throws -> Bool {
    guard let receiver else { return false }
    switch part {
    case .data(let bytes):
      bodyBytes += Int64(bytes.readableBytes)
      guard bodyBytes <= connection.limits.bodyMax.bytes else { throw bodyTooLarge }
      receiver.requestBody(bytes)
      return true
    case .end:
      requestEnded = true
      receiver.requestBodyEnded()
      return false
    case .incomplete: return false
    }
  }

  func setBodyPaused(_ isPaused: Bool) { connection.setBodyPaused(isPaused) }

  // The response.

  func begin(_ response: ResponseHead, _ stamp: ResponseStamp) {
    guard !isEnded, framing == nil else { return }
    let framing = clientFraming(of: response)
    self.framing = framing
    keepsAlive = request.keepsAlive && requestEnded && framing != .untilClose && !connection.services.isDraining
    var head = connection.channel.allocator.buffer(capacity: 1024)
    HeadWriter.write(response, framing: framing, keepsAlive: keepsAlive, into: &head)
    stamp.write(into: &head)
    if !response.message.contains("date") { head.writeString(connection.services.dateField) }
    if keepsAlive && !request.isHTTP11 { head.writeStaticString("connection: keep-alive\r\n") }
    head.writeStaticString("\r\n")
    pending = head
  }

  /// A client of HTTP/1.0 knows no chunks: the connection's end is the body's.
  private func clientFraming(of response: ResponseHead) -> BodyFraming {
    switch response.framing {
    case .none, .length: response.framing
    case .chunked, .untilClose: request.isHTTP11 ? .chunked : .untilClose
    }
  }

  func write(_ bytes: ByteBuffer) {
    guard !isEnded, let framing, bytes.readableBytes > 0 else { return }
    var bytes = bytes
    let isChunked = framing == .chunked
    if isChunked {
      var size = takePending() ?? connection.channel.allocator.buffer(capacity: bytes.readableBytes + 16)
      size.writeString(String(bytes.readableBytes, radix: 16))
      size.writeStaticString("\r\n")
      if bytes.readableBytes <= HTTPExchange.coalescedMax {
        size.writeBuffer(&bytes)
        size.writeStaticString("\r\n")
        return send(size)
      }
      send(size)
      send(bytes)
      send(ByteBuffer(staticString: "\r\n"))
    } else if var head = takePending() {
      if bytes.readableBytes <= HTTPExchange.coalescedMax {
        head.writeBuffer(&bytes)
        send(head)
      } else {
        send(head)
        send(bytes)
      }
    } else {
      send(bytes)
    }
  }

  func flush() {
    if let head = takePending() { send(head) }
    connection.channel.flush()
  }

  func end() {
    guard !isEnded, let framing else { return }
    var tail = takePending()
    if framing == .chunked {
      if tail == nil { tail = ByteBuffer(staticString: "0\r\n\r\n") } else { tail!.writeStaticString("0\r\n\r\n") }
    }
    if let tail { send(tail) }
    connection.channel.flush()
    finish()
  }

  func fail(_ error: HearthError, source: ErrorSource, _ stamp: ResponseStamp?) {
    guard !isEnded else { return }
    // A head that was not sent yet can still give way to the error.
    if framing != nil && pending == nil {
      isEnded = true
      receiver = nil
      return connection.cut()
    }
    pending = nil
    framing = BodyFraming.none
    keepsAlive = request.keepsAlive && requestEnded
    let body = ErrorEnvelope.json(error, request: requestID, source: source)
    let status = error.code.status
    var answer = connection.channel.allocator.buffer(capacity: 1024)
    answer.writeString("HTTP/1.1 \(status) \(HTTPStatus.reason(status))\r\ncontent-type: application/json\r\n")
    answer.writeString("content-length: \(body.utf8.count)\r\n")
    if let stamp { stamp.write(into: &answer) } else { answer.writeString("hearth-request-id: \(requestID)\r\n") }
    if status == 401 { answer.writeStaticString("www-authenticate: Bearer\r\n") }
    if let retryAfter = error.retryAfter {
      answer.writeString("retry-after: \(max(1, Int(retryAfter.seconds.rounded(.up))))\r\n")
    }
    answer.writeString(connection.services.dateField)
    if !keepsAlive {
      answer.writeStaticString("connection: close\r\n")
    } else if !request.isHTTP11 {
      answer.writeStaticString("connection: keep-alive\r\n")
    }
    answer.writeStaticString("\r\n")
    if request.method != "HEAD" { answer.writeString(body) }
    send(answer)
    connection.channel.flush()
    finish()
  }

  private func finish() {
    isEnded = true
    receiver = nil
    connection.exchangeEnded(keepsAlive: keepsAlive && requestEnded)
  }

  private func takePending() -> ByteBuffer? {
    defer { pending = nil }
    return pending
  }

  private func send(_ bytes: ByteBuffer) { connection.channel.write(bytes, promise: nil) }
}
