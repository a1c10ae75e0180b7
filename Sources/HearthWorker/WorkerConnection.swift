import HearthCore
import HearthHTTP1
import NIOCore

/// What a worker does with one request, as seen on its data connection. Every call happens on the connection's loop.
public protocol WorkerResponseReceiver: AnyObject {
  /// The answers to all requests before this one on the connection are whole: the worker may have begun it.
  func workerTurnCame()
  func workerResponseBegan(_ head: ResponseHead)
  func workerResponseBody(_ bytes: ByteBuffer)
  /// The response is whole. The connection takes the next request if `isReusable`.
  func workerResponseEnded(isReusable: Bool)
  func workerFailed(_ failure: WorkerFailure)
  /// What had arrived has been handed over; a good moment to flush.
  func workerReadCompleted()
  /// Whether the worker takes more of the request's body now.
  func workerWritabilityChanged(isWritable: Bool)
}

/// Why a request got no whole response from its worker.
public enum WorkerFailure: Error, Hashable, Sendable {
  /// No byte of the request was written: it can go to another worker.
  case unreachable
  /// The connection ended while the request waited behind another: the worker had not begun it.
  case notBegun
  /// The connection ended before a byte of the response.
  case closedEarly
  /// The connection ended within the response.
  case cutShort
  /// The worker sent bytes that are not an HTTP response.
  case badResponse(String)
}

/// One data connection to a worker: HTTP/1.1, requests one behind another, answered in order.
///
/// A worker begins a request when it has written the whole answer to the one before. So of the requests on a connection
/// only the first can have been begun.
public final class WorkerConnection: ChannelInboundHandler, FlushTarget {
  public typealias InboundIn = ByteBuffer
  public typealias OutboundOut = ByteBuffer

  /// A request that was sent and is not answered yet.
  private final class Exchange {
    let receiver: any WorkerResponseReceiver
    let method: String
    let isChunked: Bool
    let allowsUpgrade: Bool
    /// The id that the answer must carry; nil where the worker names none.
    let answerID: String?
    var isWritten = false
    var requestEnded = false
    var keepsAlive = false
    /// How the rest of the answer is read; nil until its head has arrived.
    var body: BodyDecoder?

    init(
      _ receiver: any WorkerResponseReceiver, method: String, isChunked: Bool, allowsUpgrade: Bool, answerID: String?
    ) {
      self.receiver = receiver
      self.method = method
      self.isChunked = isChunked
      self.allowsUpgrade = allowsUpgrade
      self.answerID = answerID
    }

    var responseBegan: Bool { body != nil }
  }

  /// 64 KiB: workers are trusted with more than clients are, and still bounded.
  private static let headMax = 64 * 1024

  /// In the order sent; the worker is at the first.
  private var exchanges: [Exchange] = []
  private var parser = ResponseParser(bytesMax: headMax)
  private var received = ByteBuffer()
  private var channel: (any Channel)?
  private var isReadPaused = false
  private var batch: FlushBatch?
  public private(set) var isOpen = false

  public init() {}

  public var eventLoop: any EventLoop { channel!.eventLoop }

  /// Whether a further request may be sent: the ones before it are sent whole, and none has a slow client.
  public var takesRequests: Bool { isOpen && !isReadPaused && exchanges.last?.requestEnded ?? true }

  /// Whether the worker takes more of a body now.
  public var isWritable: Bool { channel?.isWritable ?? false }

  /// Whether requests are on it that are not answered.
  public var hasRequests: Bool { !exchanges.isEmpty }

  // The request.

  /// Sends a request's head, and as much of its body as is there. More of it follows through `sendBody` and `endBody`.
  ///
  /// - Parameters:
  ///   - allowsUpgrade: whether the worker may switch protocols: `sendBody` and the response's body are that protocol's
  ///     bytes then.
  ///   - answerID: the request's id, if the worker repeats it in its answer. An answer to anything else is none.
  public func begin(
    _ receiver: any WorkerResponseReceiver, head: ByteBuffer, method: String, isChunked: Bool,
    allowsUpgrade: Bool = false, answerID: String? = nil
  ) {
    precondition(exchanges.last?.requestEnded ?? true, "a request follows one that was sent whole")
    exchanges.append(
      Exchange(receiver, method: method, isChunked: isChunked, allowsUpgrade: allowsUpgrade, answerID: answerID))
    guard isOpen, let channel else { return fail(last: .unreachable) }
    channel.write(head, promise: nil)
    if exchanges.count == 1 { receiver.workerTurnCame() }
  }

  private func index(of receiver: any WorkerResponseReceiver) -> Int? {
    exchanges.firstIndex { $0.receiver === receiver }
  }

  /// Sends a part of the body of the last request.
  public func sendBody(_ bytes: ByteBuffer) {
    guard let exchange = exchanges.last, let channel else { return }
    if exchange.isChunked {
      var head = channel.allocator.buffer(capacity: 20)
      head.writeString(String(bytes.readableBytes, radix: 16))
      head.writeStaticString("\r\n")
      channel.write(head, promise: nil)
      channel.write(bytes, promise: nil)
      channel.write(ByteBuffer(staticString: "\r\n"), promise: nil)
    } else {
      channel.write(bytes, promise: nil)
    }
  }

  public func endBody() {
    guard let exchange = exchanges.last, let channel else { return }
    if exchange.isChunked { channel.write(ByteBuffer(staticString: "0\r\n\r\n"), promise: nil) }
    exchange.requestEnded = true
  }

  /// Hands what was written to the system, together with what else this loop has written.
  public func flush() { batch?.add(self) }

  public func flushNow() {
    guard let channel else { return }
    channel.flush()
    // A write that fails ends the connection at once: nothing of the requests in it has reached the worker.
    guard channel.isActive else { return }
    for exchange in exchanges { exchange.isWritten = true }
  }

  /// Stops or resumes reading responses, for a client that is slower than the worker. With requests behind the one of
  /// that client this does nothing, since their clients must not wait for it; take them back first.
  public func setReadPaused(_ isPaused: Bool) {
    guard isPaused != isReadPaused, !isPaused || exchanges.count == 1 else { return }
    isReadPaused = isPaused
    try? channel?.syncOptions?.setOption(.autoRead, value: !isPaused)
  }

  /// Those who wait behind the request that the worker is at.
  public var followers: [any WorkerResponseReceiver] { exchanges.dropFirst().map(\.receiver) }

  /// Whether the worker is at this receiver's request; false while others are before it.
  public func isAt(_ receiver: any WorkerResponseReceiver) -> Bool { exchanges.first?.receiver === receiver }

  /// Forgets a request that the worker gave back. False when it is answered already.
  public func withdraw(_ receiver: any WorkerResponseReceiver) -> Bool {
    guard let index = index(of: receiver), !exchanges[index].responseBegan else { return false }
    exchanges.remove(at: index)
    if index == 0 { exchanges.first?.receiver.workerTurnCame() }
    return true
  }

  /// Gives the request up that the worker is at: the connection ends and its receiver hears no more.
  public func abandon(_ receiver: any WorkerResponseReceiver) {
    if isAt(receiver) {
      exchanges.removeFirst()
      failAll(first: .notBegun)
    }
    channel?.close(promise: nil)
  }

  public func close() { channel?.close(promise: nil) }

  // The channel.

  public func handlerAdded(context: ChannelHandlerContext) {
    channel = context.channel
    batch = FlushBatch.of(context.eventLoop)
    isOpen = context.channel.isActive
  }

  public func channelActive(context: ChannelHandlerContext) { isOpen = true }

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
    do {
      try readResponses()
      received.discardReadBytesIfLarge()
    } catch {
      let problem = (error as? HearthError)?.message ?? String(describing: error)
      failAll(first: .badResponse(problem))
      context.close(promise: nil)
    }
  }

  private func readResponses() throws {
    while let exchange = exchanges.first {
      guard exchange.responseBegan else {
        let head = try parser.parse(
          &received, requestMethod: exchange.method, allowsUpgrade: exchange.allowsUpgrade)
        guard let head else { return }
        if let answerID = exchange.answerID, head.message.first("hearth-request-id") != answerID {
          throw HearthError(.workerBadResponse, "the answer is to another request")
        }
        exchange.keepsAlive = head.keepsAlive && !head.announcesWithheldBody
        exchange.body = BodyDecoder(head.framing)
        exchange.receiver.workerResponseBegan(head)
        continue
      }
      switch try exchange.body!.next(&received) {
      case .data(let bytes): exchange.receiver.workerResponseBody(bytes)
      case .incomplete: return
      case .end: if !endResponse() { return }
      }
    }
    // Nobody asked: whatever this is, the next response could not be told from it.
    if received.readableBytes > 0 { channel?.close(promise: nil) }
  }

  /// The first request is answered. False when the connection ends with it.
  private func endResponse() -> Bool {
    let exchange = exchanges.removeFirst()
    // The next request's response must not wait for this one's client.
    setReadPaused(false)
    let isReusable =
      exchange.keepsAlive && exchange.requestEnded && isOpen
      && (received.readableBytes == 0 || !exchanges.isEmpty)
    if isReusable {
      exchanges.first?.receiver.workerTurnCame()
    } else {
      isOpen = false
    }
    exchange.receiver.workerResponseEnded(isReusable: isReusable)
    if !isReusable {
      // The worker lives and may have begun the next one, of which no answer can be told from what follows.
      failAll(first: .cutShort)
      channel?.close(promise: nil)
    }
    return isReusable
  }

  public func channelReadComplete(context: ChannelHandlerContext) {
    exchanges.first?.receiver.workerReadCompleted()
  }

  public func channelInactive(context: ChannelHandlerContext) {
    isOpen = false
    guard let exchange = exchanges.first else { return }
    if let body = exchange.body, body.isCompleteAtClose {
      _ = endResponse()
      return
    }
    let hasBytes = exchange.responseBegan || received.readableBytes > 0
    failAll(first: !exchange.isWritten ? .unreachable : hasBytes ? .cutShort : .closedEarly)
  }

  public func channelWritabilityChanged(context: ChannelHandlerContext) {
    exchanges.last?.receiver.workerWritabilityChanged(isWritable: context.channel.isWritable)
  }

  public func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // A reset or a broken pipe; `channelInactive` says what it means for the request.
    context.close(promise: nil)
  }

  /// No further response can be told from these bytes: the first request's fate is `first`, the others were not begun.
  private func failAll(first: WorkerFailure) {
    isOpen = false
    var failure = first
    let failed = exchanges
    exchanges = []
    for exchange in failed {
      exchange.receiver.workerFailed(failure)
      failure = .notBegun
    }
  }

  private func fail(last failure: WorkerFailure) {
    exchanges.removeLast().receiver.workerFailed(failure)
  }
}

@available(*, unavailable)
extension WorkerConnection: Sendable {}
