import HearthCore
import HearthHTTP1
import NIOCore
import NIOHPACK
import NIOHTTP2

/// One stream of an HTTP/2 connection: one request and its response.
///
/// The request's fields become the head of an HTTP/1.1 request, which `RequestParser` reads like any other: both
/// protocols have one set of rules.
final class HTTP2StreamHandler: ChannelInboundHandler, SweptConnection {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  /// 1 s: a client that does not end its request after it has the whole answer is not waited for.
  private static let lingerTimeout = Duration.seconds(1)

  private let services: LoopServices
  private let connection: HTTP2ConnectionHandler
  private let id: HTTP2StreamID
  private let opened: HearthInstant
  private var endedSince: HearthInstant?
  private var channel: (any Channel)!
  private var exchange: HTTP2Exchange?
  private var bodyPaused = false
  private var unwritableSince: HearthInstant?

  init(_ services: LoopServices, _ connection: HTTP2ConnectionHandler, id: HTTP2StreamID) {
    self.services = services
    self.connection = connection
    self.id = id
    opened = services.now
  }

  func handlerAdded(context: ChannelHandlerContext) {
    channel = context.channel
    services.add(self)
    connection.streamOpened(id)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .headers(let headers):
      if exchange == nil { begin(headers.headers, endStream: headers.endStream) } else { exchange?.bodyEnded() }
    case .data(let data):
      if case .byteBuffer(let bytes) = data.data { exchange?.received(bytes) }
      if data.endStream { exchange?.bodyEnded() }
    default: break
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) { exchange?.receiver?.requestReadCompleted() }

  func channelInactive(context: ChannelHandlerContext) {
    services.remove(self)
    connection.streamClosed()
    exchange?.clientLeft()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    unwritableSince = channel.isWritable ? nil : services.now
    exchange?.receiver?.clientWritabilityChanged(isWritable: channel.isWritable)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func begin(_ headers: HPACKHeaders, endStream: Bool) {
    var request: RequestHead
    do {
      request = try HTTP2Head.request(headers, endStream: endStream, bytesMax: Int(services.limits.headMax.bytes))
    } catch {
      return refuse(error as? HearthError ?? malformedRequest)
    }
    do {
      let admission = try services.gate.admit(&request) { channel.parent?.remoteAddress?.ipAddress ?? "" }
      let exchange = makeExchange(request, admission, endStream: endStream)
      exchange.bodyPauser = { [weak self] in self?.setBodyPaused($0) }
      if request.expectsContinue { sendContinue() }
      exchange.begin(with: try services.gate.router.accept(exchange, function: admission.name))
    } catch {
      let exchange = self.exchange ?? makeExchange(request, .refused, endStream: endStream)
      exchange.fail(error as? HearthError ?? malformedRequest, source: .gateway, nil)
    }
  }

  private func makeExchange(
    _ request: RequestHead, _ admission: RequestGate.Admission, endStream: Bool
  ) -> HTTP2Exchange {
    let exchange = HTTP2Exchange(request, admission, channel, services, requestEnded: endStream)
    self.exchange = exchange
    return exchange
  }

  private var malformedRequest: HearthError {
    HearthError(.requestMalformed, "This is not a valid HTTP/2 request.")
  }

  private func sendContinue() {
    channel.writeAndFlush(
      HTTP2Frame.FramePayload.headers(.init(headers: HPACKHeaders([(":status", "100")]))), promise: nil)
  }

  /// Answers fields that are no request.
  private func refuse(_ error: HearthError) {
    let request = services.noteRefusal(error, client: channel.parent?.remoteAddress?.ipAddress)
    let body = ErrorEnvelope.json(error, request: request, source: .gateway)
    var head = channel.allocator.buffer(capacity: 512)
    error.writeHead(request: request, nil, into: &head)
    channel.write(HTTP2Frame.FramePayload.headers(.init(headers: HTTP2Head.response(head))), promise: nil)
    channel.writeAndFlush(
      HTTP2Frame.FramePayload.data(.init(data: .byteBuffer(ByteBuffer(string: body)), endStream: true)), promise: nil)
  }

  private func setBodyPaused(_ isPaused: Bool) {
    guard isPaused != bodyPaused else { return }
    bodyPaused = isPaused
    if !isPaused { exchange?.pace.resumed(now: services.now) }
    try? channel.syncOptions?.setOption(.autoRead, value: !isPaused)
    // A stream's channel does not read by itself when it may again.
    if !isPaused { channel.read() }
  }

  func timePassed(now: HearthInstant) {
    if let since = unwritableSince, since.duration(to: now) > services.limits.stallTimeout {
      channel.close(promise: nil)
      return
    }
    guard let exchange else {
      // No fields, or refused ones: either way nothing more is to come of it.
      if opened.duration(to: now) > services.limits.headTimeout { channel.close(promise: nil) }
      return
    }
    if exchange.isEnded {
      let since = endedSince ?? now
      endedSince = since
      if since.duration(to: now) > HTTP2StreamHandler.lingerTimeout, channel.isWritable { channel.close(promise: nil) }
      if since.duration(to: now) > services.limits.stallTimeout { channel.close(promise: nil) }
      return
    }
    if !bodyPaused, let problem = exchange.slowness(now: now) { return exchange.refuse(problem) }
    exchange.receiver?.timePassed(now: now)
  }

  /// The connection as a whole says when it ends; what runs may finish.
  func drain() {}
}
