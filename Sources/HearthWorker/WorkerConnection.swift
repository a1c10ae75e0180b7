import HearthCore
import HearthHTTP1
import NIOCore

/// What a worker does with one request, as seen on its data connection. Every call happens on the connection's loop.
public protocol WorkerResponseReceiver: AnyObject {
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
  /// The connection ended before a byte of the response.
  case closedEarly
  /// The connection ended within the response.
  case cutShort
  /// The worker sent bytes that are not an HTTP response.
  case badResponse(String)
}

/// One data connection to a worker: HTTP/1.1, one request at a time.
public final class WorkerConnection: ChannelInboundHandler {
  public typealias InboundIn = ByteBuffer
  public typealias OutboundOut = ByteBuffer

  /// The request that the connection is busy with.
  private struct Exchange {
    let receiver: any WorkerResponseReceiver
    let method: String
    let isChunked: Bool
    var isWritten = false
    var requestEnded = false
    var responseBegan = false
    var keepsAlive = false
    var body: BodyDecoder?
  }

  /// 64 KiB: workers are trusted with more than clients are, and still bounded.
  private static let headMax = 64 * 1024

  private var exchange: Exchange?
  private var parser = ResponseParser(bytesMax: headMax)
  private var received = ByteBuffer()
  private var channel: (any Channel)?
  private var isReadPaused = false
  public private(set) var isOpen = false

  public init() {}

  public var eventLoop: any EventLoop { channel!.eventLoop }

  // The request.

  /// Sends a request's head. The body follows through `sendBody` and `endBody`.
  public func begin(_ receiver: any WorkerResponseReceiver, head: ByteBuffer, method: String, isChunked: Bool) {
    precondition(exchange == nil, "a worker connection serves one request at a time")
    exchange = Exchange(receiver: receiver, method: method, isChunked: isChunked)
    guard isOpen, let channel else { return fail(.unreachable) }
    let written = channel.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenSuccess { self.exchange?.isWritten = true }
    channel.write(head, promise: written)
  }

  public func sendBody(_ bytes: ByteBuffer) {
    guard let exchange, let channel else { return }
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
    guard let exchange, let channel else { return }
    if exchange.isChunked { channel.write(ByteBuffer(staticString: "0\r\n\r\n"), promise: nil) }
    self.exchange?.requestEnded = true
  }

  public func flush() { channel?.flush() }

  /// Stops or resumes reading the response, for a client that is slower than the worker.
  public func setReadPaused(_ isPaused: Bool) {
    guard isPaused != isReadPaused else { return }
    isReadPaused = isPaused
    try? channel?.syncOptions?.setOption(.autoRead, value: !isPaused)
  }

  /// Gives the request up: the connection ends and the receiver hears no more.
  public func abandon() {
    exchange = nil
    channel?.close(promise: nil)
  }

  public func close() { channel?.close(promise: nil) }

  // The channel.

  public func handlerAdded(context: ChannelHandlerContext) {
    channel = context.channel
    isOpen = context.channel.isActive
  }

  public func channelActive(context: ChannelHandlerContext) { isOpen = true }

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
    guard exchange != nil else {
      // Nobody asked: whatever this is, the next response could not be told from it.
      context.close(promise: nil)
      return
    }
    do {
      try readResponse()
      received.discardReadBytesIfLarge()
    } catch {
      let problem = (error as? HearthError)?.message ?? String(describing: error)
      fail(.badResponse(problem))
      context.close(promise: nil)
    }
  }

  private func readResponse() throws {
    while let exchange {
      guard var body = exchange.body else {
        guard let head = try parser.parse(&received, requestMethod: exchange.method) else { return }
        self.exchange?.responseBegan = true
        self.exchange?.keepsAlive = head.keepsAlive && !head.announcesWithheldBody
        self.exchange?.body = BodyDecoder(head.framing)
        exchange.receiver.workerResponseBegan(head)
        continue
      }
      let part = try body.next(&received)
      self.exchange?.body = body
      switch part {
      case .data(let bytes): exchange.receiver.workerResponseBody(bytes)
      case .incomplete: return
      case .end: return endResponse()
      }
    }
  }

  private func endResponse() {
    guard let exchange else { return }
    self.exchange = nil
    // The next request's response must not wait for this one's client.
    setReadPaused(false)
    let isReusable = exchange.keepsAlive && exchange.requestEnded && isOpen && received.readableBytes == 0
    if !isReusable { channel?.close(promise: nil) }
    exchange.receiver.workerResponseEnded(isReusable: isReusable)
  }

  public func channelReadComplete(context: ChannelHandlerContext) { exchange?.receiver.workerReadCompleted() }

  public func channelInactive(context: ChannelHandlerContext) {
    isOpen = false
    guard let exchange else { return }
    if let body = exchange.body, body.isCompleteAtClose { return endResponse() }
    if !exchange.isWritten { return fail(.unreachable) }
    let hasBytes = exchange.responseBegan || received.readableBytes > 0
    fail(hasBytes ? .cutShort : .closedEarly)
  }

  public func channelWritabilityChanged(context: ChannelHandlerContext) {
    exchange?.receiver.workerWritabilityChanged(isWritable: context.channel.isWritable)
  }

  public func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // A reset or a broken pipe; `channelInactive` says what it means for the request.
    context.close(promise: nil)
  }

  private func fail(_ failure: WorkerFailure) {
    guard let exchange else { return }
    self.exchange = nil
    exchange.receiver.workerFailed(failure)
  }
}

@available(*, unavailable)
extension WorkerConnection: Sendable {}
