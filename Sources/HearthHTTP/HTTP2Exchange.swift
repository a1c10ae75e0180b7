import HearthCore
import HearthHTTP1
import NIOCore
import NIOHPACK
import NIOHTTP2

/// One request and its response on a stream of HTTP/2.
final class HTTP2Exchange: IncomingRequest, ClientExchange {
  /// Set by the stream: stops or resumes the body.
  var bodyPauser: (Bool) -> Void = { _ in }

  private let channel: any Channel
  private var hasBegun = false
  /// The head, until the first bytes of the body can go with it.
  private var pending: HPACKHeaders?

  init(
    _ request: RequestHead, _ admission: RequestGate.Admission, _ channel: any Channel, _ services: LoopServices,
    requestEnded: Bool
  ) {
    self.channel = channel
    super.init(request, admission, services, requestEnded: requestEnded)
  }

  var eventLoop: any EventLoop { channel.eventLoop }

  override var clientAddress: String { channel.parent?.remoteAddress?.ipAddress ?? "" }

  // The request.

  func received(_ bytes: ByteBuffer) {
    guard let receiver, bytes.readableBytes > 0 else { return }
    do {
      try count(bytes.readableBytes)
      receiver.requestBody(bytes)
    } catch {
      refuse(error as? HearthError ?? services.gate.bodyTooLarge)
    }
  }

  func bodyEnded() {
    guard !requestEnded else { return }
    requestEnded = true
    // A request that declared no body has been told as whole already.
    if request.framing != .none { receiver?.requestBodyEnded() }
  }

  /// Ends a request that is not to go on, and says why.
  func refuse(_ error: HearthError) {
    abandon()
    fail(error, source: .gateway, nil)
  }

  func setBodyPaused(_ isPaused: Bool) { bodyPauser(isPaused) }

  // The response.

  func begin(_ response: ResponseHead, _ stamp: ResponseStamp) {
    guard !isEnded, !hasBegun else { return }
    hasBegun = true
    var head = channel.allocator.buffer(capacity: 1024)
    HeadWriter.write(response, framing: .none, keepsAlive: true, into: &head)
    writeFields(response, stamp, into: &head)
    pending = HTTP2Head.response(head)
  }

  func write(_ bytes: ByteBuffer) {
    guard !isEnded, hasBegun, bytes.readableBytes > 0 else { return }
    answered(bytes.readableBytes)
    sendPending(endStream: false)
    send(.data(.init(data: .byteBuffer(bytes))))
  }

  func flush() {
    sendPending(endStream: false)
    channel.flush()
  }

  func end() {
    guard !isEnded, hasBegun else { return }
    if pending != nil {
      sendPending(endStream: true)
    } else {
      send(.data(.init(data: .byteBuffer(ByteBuffer()), endStream: true)))
    }
    finish()
  }

  func fail(_ error: HearthError, source: ErrorSource, _ stamp: ResponseStamp?) {
    guard !isEnded else { return }
    // A head that was not sent yet can still give way to the error; a stream that has begun is reset.
    if hasBegun && pending == nil {
      cutAnswer(error)
      channel.close(promise: nil)
      return
    }
    pending = nil
    hasBegun = true
    var head = channel.allocator.buffer(capacity: 512)
    let body = writeHead(error, source: source, stamp, into: &head)
    pending = HTTP2Head.response(head)
    if request.method == "HEAD" {
      sendPending(endStream: true)
    } else {
      sendPending(endStream: false)
      send(.data(.init(data: .byteBuffer(ByteBuffer(string: body)), endStream: true)))
    }
    finish()
  }

  private func finish() {
    logEnd(.whole)
    channel.flush()
    isEnded = true
    receiver = nil
    // What the client still sends of the request is read and dropped, so that it hears the answer.
    setBodyPaused(false)
  }

  private func sendPending(endStream: Bool) {
    guard let head = pending else { return }
    pending = nil
    send(.headers(.init(headers: head, endStream: endStream)))
  }

  private func send(_ payload: HTTP2Frame.FramePayload) { channel.write(payload, promise: nil) }
}
