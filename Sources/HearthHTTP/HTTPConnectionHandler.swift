import Glibc
import HearthCore
import HearthHTTP1
import NIOCore
import NIOPosix
import NIOSSL

/// One client connection of the data plane: requests are read and answered one after another.
final class HTTPConnectionHandler: ChannelInboundHandler, RemovableChannelHandler, SweptConnection, FlushTarget {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private enum State {
    /// Between requests, since `since`.
    case idle(since: HearthInstant)
    /// A head has begun to arrive.
    case readingHead(since: HearthInstant)
    case exchanging(HTTPExchange)
    /// The last response waits to be taken by the client.
    case flushing(since: HearthInstant)
    /// The last response is sent; what the client still sends is dropped until it closes.
    case lingering(since: HearthInstant)
    case closed
  }

  /// 64 KiB of pipelined requests wait here; more stay in the client's socket.
  private static let pipelinedMax = 64 * 1024
  /// 1 s: long enough for a client on the same continent to read its error before the connection ends.
  private static let lingerTimeout = Duration.seconds(1)

  let services: LoopServices
  private var state: State
  private var parser: RequestParser
  private var received = ByteBuffer()
  private var isProcessing = false
  private let isSecure: Bool
  /// Over TLS the protocol was agreed on before.
  private var mayBeHTTP2: Bool
  private var inputClosed = false
  private var bodyPaused = false
  private var unwritableSince: HearthInstant?
  private(set) var channel: (any Channel)!

  init(services: LoopServices, isSecure: Bool = false) {
    self.services = services
    self.isSecure = isSecure
    mayBeHTTP2 = !isSecure
    parser = RequestParser(bytesMax: Int(services.limits.headMax.bytes))
    state = .readingHead(since: services.now)
  }

  // The channel.

  func handlerAdded(context: ChannelHandlerContext) {
    channel = context.channel
    services.add(self)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch state {
    case .flushing, .lingering: return
    default: break
    }
    var bytes = unwrapInboundIn(data)
    if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
    process()
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if case .exchanging(let exchange) = state { exchange.receiver?.requestReadCompleted() }
    updateReading()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard case ChannelEvent.inputClosed = event else { return }
    inputClosed = true
    switch state {
    case .exchanging(let exchange) where exchange.requestEnded && !exchange.isTunnel: break
    case .flushing: break
    default: close()
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    let last = state
    state = .closed
    services.remove(self)
    if case .exchanging(let exchange) = last { exchange.clientLeft() }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    let isWritable = context.channel.isWritable
    unwritableSince = isWritable ? nil : services.now
    if case .exchanging(let exchange) = state {
      exchange.receiver?.clientWritabilityChanged(isWritable: isWritable)
    } else if isWritable {
      process()
      updateReading()
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  /// Flushes with what else this loop has written.
  func flushSoon() { services.batch.add(self) }

  func flushNow() { channel.flush() }

  /// Ends the connection with what was written to it.
  private func close() {
    channel.flush()
    channel.close(promise: nil)
  }

  // Requests.

  private func process() {
    guard !isProcessing else { return }
    isProcessing = true
    defer { isProcessing = false }
    do {
      while try step() {}
      received.discardReadBytesIfLarge()
    } catch {
      refuse(error as? HearthError ?? malformedRequest)
    }
  }

  /// Does the next thing that the received bytes allow; false when there is none.
  private func step() throws -> Bool {
    switch state {
    case .idle, .readingHead:
      if mayBeHTTP2, try handOverHTTP2() { return false }
      // A client that sends and does not read gets no further answers made, and waits.
      guard channel.isWritable else { return false }
      guard let request = try parser.parse(&received) else {
        if case .idle = state, received.readableBytes > 0 { state = .readingHead(since: services.now) }
        return false
      }
      try begin(request)
      return true
    case .exchanging(let exchange):
      guard let part = try exchange.nextPart(of: &received) else { return false }
      return try exchange.handOn(part)
    case .flushing, .lingering, .closed:
      return false
    }
  }

  /// Whether the connection's first bytes are the preface of HTTP/2, or may still become it (RFC 9113, section 3.4).
  private func handOverHTTP2() throws -> Bool {
    switch HTTP2.match(received) {
    case .none:
      mayBeHTTP2 = false
      return false
    case .partial: return true
    case .whole: break
    }
    let bytes = received
    received.clear()
    state = .closed
    services.remove(self)
    try HTTP2.configure(channel, services)
    channel.pipeline.syncOperations.removeHandler(self, promise: nil)
    channel.pipeline.fireChannelRead(bytes)
    channel.pipeline.fireChannelReadComplete()
    return true
  }

  private var malformedRequest: HearthError {
    HearthError(.requestMalformed, "This is not a valid HTTP/1.1 request.")
  }

  private func begin(_ request: RequestHead) throws {
    var request = request
    do {
      let admission = try services.gate.admit(&request) { channel.remoteAddress?.ipAddress ?? "" }
      let exchange = HTTPExchange(request, admission, connection: self)
      state = .exchanging(exchange)
      if request.expectsContinue {
        channel.writeAndFlush(ByteBuffer(staticString: "HTTP/1.1 100 Continue\r\n\r\n"), promise: nil)
      }
      exchange.begin(with: try services.gate.router.accept(exchange, function: admission.name))
    } catch {
      // A request whose body is not wanted: answer, and read on only if there is none.
      let exchange: HTTPExchange
      if case .exchanging(let admitted) = state {
        exchange = admitted
      } else {
        exchange = HTTPExchange(request, .refused, connection: self)
        state = .exchanging(exchange)
      }
      exchange.fail(error as? HearthError ?? malformedRequest, source: .gateway, nil)
    }
  }

  /// Answers bytes that are no request, and ends the connection.
  private func refuse(_ error: HearthError) {
    if case .exchanging(let exchange) = state {
      exchange.abandon()
      exchange.fail(error, source: .gateway, nil)
      return
    }
    let request = services.noteRefusal(error, client: channel.remoteAddress?.ipAddress)
    let body = ErrorEnvelope.json(error, request: request, source: .gateway)
    var answer = channel.allocator.buffer(capacity: 1024)
    error.writeHead(request: request, nil, into: &answer)
    answer.writeString(
      "content-length: \(body.utf8.count)\r\n\(services.dateField)connection: close\r\n\r\n\(body)")
    channel.writeAndFlush(answer, promise: nil)
    linger()
  }

  // From the exchange.

  func setBodyPaused(_ isPaused: Bool) {
    if bodyPaused, !isPaused, case .exchanging(let exchange) = state { exchange.pace.resumed(now: services.now) }
    bodyPaused = isPaused
    updateReading()
  }

  private func updateReading() {
    let reads: Bool
    switch state {
    case .exchanging(let exchange):
      reads = exchange.requestEnded ? received.readableBytes < HTTPConnectionHandler.pipelinedMax : !bodyPaused
    case .idle, .readingHead:
      reads = channel.isWritable || received.readableBytes < HTTPConnectionHandler.pipelinedMax
    default: reads = true
    }
    if reads != isReading {
      isReading = reads
      try? channel.syncOptions?.setOption(.autoRead, value: reads)
    }
  }

  private var isReading = true

  /// The connection has become the function's: what arrived behind the request is for it.
  func becameTunnel() {
    process()
    if case .exchanging(let exchange) = state { exchange.receiver?.requestReadCompleted() }
    updateReading()
  }

  /// The response is whole. The connection takes the next request if both sides allow it.
  func exchangeEnded(keepsAlive: Bool) {
    guard case .exchanging = state else { return }
    bodyPaused = false
    guard keepsAlive, !inputClosed, !services.isDraining else { return linger() }
    state = .idle(since: services.now)
    if received.readableBytes > 0 { process() }
    if case .exchanging(let exchange) = state { exchange.receiver?.requestReadCompleted() }
    updateReading()
  }

  /// The response cannot be finished: ends the connection in a way that no client takes for a whole response.
  func cut() {
    let last = state
    state = .closed
    services.remove(self)
    if case .exchanging(let exchange) = last { exchange.clientLeft() }
    channel.flush()
    // A reset instead of an orderly end.
    _ = (channel as? any SocketOptionProvider)?.setSoLinger(Glibc.linger(l_onoff: 1, l_linger: 0))
    // TLS would say an orderly farewell: the connection below it is ended instead.
    if isSecure, let tls = try? channel.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self) {
      return tls.close(promise: nil)
    }
    channel.close(promise: nil)
  }

  /// Ends the connection so that nothing sent is lost: the client takes what waits, then hears the end, then may
  /// close. A close with unread bytes, or before the last write, would cost it the response.
  private func linger() {
    state = .flushing(since: services.now)
    received.clear()
    updateReading()
    let flushed = channel.eventLoop.makePromise(of: Void.self)
    flushed.futureResult.assumeIsolated().whenComplete { [self] _ in
      guard case .flushing = state else { return }
      if inputClosed { return channel.close(promise: nil) }
      state = .lingering(since: services.now)
      channel.close(mode: .output, promise: nil)
    }
    channel.writeAndFlush(ByteBuffer(), promise: flushed)
  }

  // Time and ending.

  func timePassed(now: HearthInstant) {
    let limits = services.limits
    if let since = unwritableSince, since.duration(to: now) > limits.stallTimeout { return cut() }
    switch state {
    case .idle(let since):
      if since.duration(to: now) > limits.keepAliveTimeout { close() }
    case .readingHead(let since):
      // A client that does not read is another limit's affair.
      guard since.duration(to: now) > limits.headTimeout, channel.isWritable else { return }
      if received.readableBytes == 0 { return channel.close(promise: nil) }
      refuse(HearthError(.requestTimeout, "The request head did not arrive within \(limits.headTimeout.text)."))
    case .exchanging(let exchange):
      if !bodyPaused, let problem = exchange.slowness(now: now) { return refuse(problem) }
      exchange.receiver?.timePassed(now: now)
    case .flushing(let since):
      if since.duration(to: now) > limits.stallTimeout { cut() }
    case .lingering(let since):
      if since.duration(to: now) > HTTPConnectionHandler.lingerTimeout { channel.close(promise: nil) }
    case .closed: break
    }
  }

  func drain() {
    switch state {
    case .idle: close()
    case .readingHead where received.readableBytes == 0: close()
    default: break
    }
  }
}
