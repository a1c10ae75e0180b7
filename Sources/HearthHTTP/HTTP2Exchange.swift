import HearthCore
import HearthHTTP1
import NIOCore
import NIOHPACK
import NIOHTTP2

/// One request and its response on a stream of HTTP/2.
final class HTTP2Exchange: ClientExchange {
  let request: RequestHead
  let target: String
  let requestID: String
  let arrival: HearthInstant
  /// Who answers; nil once it has, or the client is gone.
  private(set) var receiver: (any ExchangeReceiver)?
  private(set) var requestEnded: Bool
  var pace: BodyPace
  /// Set by the stream: stops or resumes the body.
  var bodyPauser: (Bool) -> Void = { _ in }

  private let channel: any Channel
  private let services: LoopServices
  private let client: String?
  private var bodyBytes: Int64 = 0
  private(set) var isEnded = false
  private var hasBegun = false
  /// The head, until the first bytes of the body can go with it.
  private var pending: HPACKHeaders?

  init(
    _ request: RequestHead, _ admission: RequestGate.Admission, _ channel: any Channel, _ services: LoopServices,
    requestEnded: Bool
  ) {
    self.request = request
    target = admission.target
    client = admission.client
    self.channel = channel
    self.services = services
    self.requestEnded = requestEnded
    requestID = services.nextRequestID()
    arrival = services.now
    pace = BodyPace(began: arrival)
  }

  deinit {
    if let client { services.gate.leave(client) }
  }

  var eventLoop: any EventLoop { channel.eventLoop }

  // The request.

  func begin(with receiver: any ExchangeReceiver) {
    if !isEnded { self.receiver = receiver }
  }

  func received(_ bytes: ByteBuffer) {
    guard let receiver, bytes.readableBytes > 0 else { return }
    bodyBytes += Int64(bytes.readableBytes)
    guard bodyBytes <= services.limits.bodyMax.bytes else {
      abandon()
      return fail(services.gate.bodyTooLarge, source: .gateway, nil)
    }
    pace.received(bytes.readableBytes, now: services.now)
    receiver.requestBody(bytes)
  }

  func bodyEnded() {
    guard !requestEnded else { return }
    requestEnded = true
    // A request that declared no body has been told as whole already.
    if request.framing != .none { receiver?.requestBodyEnded() }
  }

  func abandon() {
    let receiver = receiver
    self.receiver = nil
    receiver?.clientLeft()
  }

  func setBodyPaused(_ isPaused: Bool) { bodyPauser(isPaused) }

  // The response.

  func begin(_ response: ResponseHead, _ stamp: ResponseStamp) {
    guard !isEnded, !hasBegun else { return }
    hasBegun = true
    var head = channel.allocator.buffer(capacity: 1024)
    HeadWriter.write(response, framing: .none, keepsAlive: true, into: &head)
    stamp.write(into: &head)
    if !response.message.contains("date") { head.writeString(services.dateField) }
    pending = HTTP2Head.response(head)
  }

  func write(_ bytes: ByteBuffer) {
    guard !isEnded, hasBegun, bytes.readableBytes > 0 else { return }
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
      isEnded = true
      receiver = nil
      channel.close(promise: nil)
      return
    }
    pending = nil
    hasBegun = true
    var head = channel.allocator.buffer(capacity: 512)
    error.writeHead(request: requestID, stamp, into: &head)
    head.writeString(services.dateField)
    let body = ErrorEnvelope.json(error, request: requestID, source: source)
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
