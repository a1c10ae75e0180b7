import Glibc
import HearthCore
import HearthHTTP1
import NIOCore
import NIOPosix

/// One client connection of the data plane: requests are read and answered one after another.
final class HTTPConnectionHandler: ChannelInboundHandler {
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

  let limits: HTTPLimits
  let services: LoopServices
  private let router: any FunctionRouter
  private var state: State
  private var parser: RequestParser
  private var received = ByteBuffer()
  private var isProcessing = false
  private var inputClosed = false
  private var bodyPaused = false
  private var unwritableSince: HearthInstant?
  private(set) var channel: (any Channel)!

  init(limits: HTTPLimits, services: LoopServices, router: any FunctionRouter) {
    self.limits = limits
    self.services = services
    self.router = router
    parser = RequestParser(bytesMax: Int(limits.headMax.bytes))
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
    case .exchanging(let exchange) where exchange.requestEnded: break
    case .flushing: break
    default: context.close(promise: nil)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    let last = state
    state = .closed
    services.remove(self)
    if case .exchanging(let exchange) = last { exchange.abandon() }
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

  private var malformedRequest: HearthError {
    HearthError(.requestMalformed, "This is not a valid HTTP/1.1 request.")
  }

  private func begin(_ request: RequestHead) throws {
    var request = request
    let exchange: HTTPExchange
    do {
      request.hidesAuthorization = try authorise(request)
      let (name, target) = try FunctionPath.split(request.target)
      exchange = HTTPExchange(request, target: target, connection: self)
      state = .exchanging(exchange)
      if case .length(let length) = request.framing, length > limits.bodyMax.bytes { throw exchange.bodyTooLarge }
      if request.expectsContinue {
        channel.writeAndFlush(ByteBuffer(staticString: "HTTP/1.1 100 Continue\r\n\r\n"), promise: nil)
      }
      exchange.begin(with: try router.accept(exchange, function: name))
    } catch {
      // A request whose body is not wanted: answer, and read on only if there is none.
      let exchange = HTTPExchange(request, target: "", connection: self)
      state = .exchanging(exchange)
      exchange.fail(error as? HearthError ?? malformedRequest, source: .gateway, nil)
    }
  }

  /// Checks the key, if one is needed; true when `Authorization` carried it.
  private func authorise(_ request: RequestHead) throws -> Bool {
    guard !limits.keys.isEmpty else { return false }
    let given = request.message.first("authorization") ?? ""
    let isKnown = limits.keys.reduce(false) { Bearer.matches(given, key: $1) || $0 }
    guard isKnown else {
      throw HearthError(
        .unauthorized, "This gateway needs a key.", hint: "Send 'Authorization: Bearer KEY' with a key of its owner's.")
    }
    return true
  }

  /// Answers bytes that are no request, and ends the connection.
  private func refuse(_ error: HearthError) {
    if case .exchanging(let exchange) = state {
      exchange.abandon()
      exchange.fail(error, source: .gateway, nil)
      return
    }
    let body = ErrorEnvelope.json(error, request: services.nextRequestID(), source: .gateway)
    channel.writeAndFlush(
      ByteBuffer(
        string: "HTTP/1.1 \(error.code.status) \(HTTPStatus.reason(error.code.status))\r\n"
          + "content-type: application/json\r\ncontent-length: \(body.utf8.count)\r\n\(services.dateField)"
          + "connection: close\r\n\r\n\(body)"), promise: nil)
    linger()
  }

  // From the exchange.

  func setBodyPaused(_ isPaused: Bool) {
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
    if case .exchanging(let exchange) = last { exchange.abandon() }
    // A reset instead of an orderly end.
    _ = (channel as? any SocketOptionProvider)?.setSoLinger(Glibc.linger(l_onoff: 1, l_linger: 0))
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
    if let since = unwritableSince, since.duration(to: now) > limits.stallTimeout { return cut() }
    switch state {
    case .idle(let since):
      if since.duration(to: now) > limits.keepAliveTimeout { channel.close(promise: nil) }
    case .readingHead(let since):
      // A client that does not read is another limit's affair.
      guard since.duration(to: now) > limits.headTimeout, channel.isWritable else { return }
      if received.readableBytes == 0 { return channel.close(promise: nil) }
      refuse(HearthError(.requestTimeout, "The request head did not arrive within \(limits.headTimeout.text)."))
    case .exchanging(let exchange): exchange.receiver?.timePassed(now: now)
    case .flushing(let since):
      if since.duration(to: now) > limits.stallTimeout { cut() }
    case .lingering(let since):
      if since.duration(to: now) > HTTPConnectionHandler.lingerTimeout { channel.close(promise: nil) }
    case .closed: break
    }
  }

  func drain() {
    switch state {
    case .idle: channel.close(promise: nil)
    case .readingHead where received.readableBytes == 0: channel.close(promise: nil)
    default: break
    }
  }
}

/// Paths of the data plane: `/functions/NAME`, and whatever below it is the function's own.
enum FunctionPath {
  private static let prefix = "/functions/".utf8

  static func split(_ target: String) throws -> (name: Substring, target: String) {
    let bytes = target.utf8
    guard bytes.starts(with: prefix) else {
      throw HearthError(
        .routeNotFound, "There is nothing at this path.", hint: "Call a function: POST /functions/NAME.")
    }
    let start = bytes.index(bytes.startIndex, offsetBy: prefix.count)
    let slash = UInt8(ascii: "/")
    let question = UInt8(ascii: "?")
    guard let end = bytes[start...].firstIndex(where: { $0 == slash || $0 == question }) else {
      return (target[start...], "/")
    }
    return (target[start..<end], bytes[end] == question ? "/\(target[end...])" : String(target[end...]))
  }
}
