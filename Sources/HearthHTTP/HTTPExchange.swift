import HearthCore
import HearthHTTP1
import NIOCore

/// One request and its response on a client's connection.
final class HTTPExchange: IncomingRequest, ClientExchange {
  /// 16 KiB: below, copying a body behind its head is cheaper than a second write.
  private static let coalescedMax = 16 * 1024

  private let connection: HTTPConnectionHandler
  private var decoder: BodyDecoder
  private(set) var isTunnel = false
  /// How the response is delimited; nil until its head was written.
  private var framing: BodyFraming?
  private var keepsAlive = false
  /// The head, until the first bytes of the body can go with it.
  private var pending: ByteBuffer?

  init(_ request: RequestHead, _ admission: RequestGate.Admission, connection: HTTPConnectionHandler) {
    self.connection = connection
    decoder = BodyDecoder(request.framing)
    super.init(request, admission, connection.services, requestEnded: request.framing == .none)
  }

  var eventLoop: any EventLoop { connection.channel.eventLoop }

  override var clientAddress: String { connection.channel.remoteAddress?.ipAddress ?? "" }

  // The request.

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
      if !isTunnel { try count(bytes.readableBytes) }
      receiver.requestBody(bytes)
      return true
    case .end:
      requestEnded = true
      receiver.requestBodyEnded()
      return false
    case .incomplete: return false
    }
  }

  override func slowness(now: HearthInstant) -> HearthError? { isTunnel ? nil : super.slowness(now: now) }

  func setBodyPaused(_ isPaused: Bool) { connection.setBodyPaused(isPaused) }

  // The response.

  func begin(_ response: ResponseHead, _ stamp: ResponseStamp) {
    guard !isEnded, framing == nil else { return }
    let framing = clientFraming(of: response)
    self.framing = framing
    keepsAlive = request.keepsAlive && requestEnded && framing != .untilClose && !services.isDraining
    var head = connection.channel.allocator.buffer(capacity: 1024)
    HeadWriter.write(response, framing: framing, keepsAlive: keepsAlive || response.isUpgrade, into: &head)
    writeFields(response, stamp, into: &head)
    if keepsAlive && !request.isHTTP11 { head.writeStaticString("connection: keep-alive\r\n") }
    head.writeStaticString("\r\n")
    pending = head
    if response.isUpgrade { becomeTunnel() }
  }

  /// The function has switched protocols: from here on bytes go both ways as they are.
  private func becomeTunnel() {
    flush()
    isTunnel = true
    requestEnded = false
    decoder = BodyDecoder(.untilClose)
    connection.becameTunnel()
  }

  /// A client of HTTP/1.0 knows no chunks, nor does another protocol: the connection's end is the body's.
  private func clientFraming(of response: ResponseHead) -> BodyFraming {
    if response.isUpgrade { return .untilClose }
    switch response.framing {
    case .none, .length: return response.framing
    case .chunked, .untilClose: return request.isHTTP11 ? .chunked : .untilClose
    }
  }

  func write(_ bytes: ByteBuffer) {
    guard !isEnded, let framing, bytes.readableBytes > 0 else { return }
    answered(bytes.readableBytes)
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
    connection.flushSoon()
  }

  func end() {
    guard !isEnded, let framing else { return }
    var tail = takePending()
    if framing == .chunked {
      if tail == nil { tail = ByteBuffer(staticString: "0\r\n\r\n") } else { tail!.writeStaticString("0\r\n\r\n") }
    }
    if let tail { send(tail) }
    connection.flushSoon()
    finish()
  }

  func fail(_ error: HearthError, source: ErrorSource, _ stamp: ResponseStamp?) {
    guard !isEnded else { return }
    // A head that was not sent yet can still give way to the error.
    if framing != nil && pending == nil {
      cutAnswer(error)
      return connection.cut()
    }
    pending = nil
    framing = BodyFraming.none
    keepsAlive = request.keepsAlive && requestEnded
    var answer = connection.channel.allocator.buffer(capacity: 1024)
    let body = writeHead(error, source: source, stamp, into: &answer)
    answer.writeString("content-length: \(body.utf8.count)\r\n")
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
    logEnd(.whole)
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
