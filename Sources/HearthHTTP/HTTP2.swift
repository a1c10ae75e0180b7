import HearthCore
import HearthHTTP1
import NIOCore
import NIOHTTP2

/// HTTP/2 (RFC 9113) on a connection: by ALPN, or in cleartext by prior knowledge.
enum HTTP2 {
  static let preface = ByteBuffer(staticString: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

  enum Match {
    case none
    case partial
    case whole
  }

  /// Whether a connection's first bytes are the preface.
  static func match(_ received: ByteBuffer) -> Match {
    guard received.readableBytes > 0 else { return .partial }
    let count = min(received.readableBytes, preface.readableBytes)
    guard received.readableBytesView.prefix(count).elementsEqual(preface.readableBytesView.prefix(count)) else {
      return .none
    }
    return count == preface.readableBytes ? .whole : .partial
  }

  /// Makes the channel speak HTTP/2. Floods of resets, continuations, pings and settings end the connection by the
  /// limits of swift-nio-http2, which checks header blocks and content lengths too.
  static func configure(_ channel: any Channel, _ services: LoopServices) throws {
    var connection = NIOHTTP2Handler.ConnectionConfiguration()
    connection.initialSettings = [
      HTTP2Setting(parameter: .maxConcurrentStreams, value: services.limits.streamsMax),
      HTTP2Setting(parameter: .maxHeaderListSize, value: Int(services.limits.headMax.bytes)),
      HTTP2Setting(parameter: .initialWindowSize, value: HTTP2.window),
    ]
    connection.targetWindowSize = 4 * HTTP2.window
    var stream = NIOHTTP2Handler.StreamConfiguration()
    stream.targetWindowSize = HTTP2.window
    stream.outboundBufferSizeHighWatermark = 64 * 1024
    stream.outboundBufferSizeLowWatermark = 32 * 1024
    let handler = HTTP2ConnectionHandler(services)
    let bound = NIOLoopBound((services, handler), eventLoop: channel.eventLoop)
    _ = try channel.pipeline.syncOperations.configureHTTP2Pipeline(
      mode: .server, connectionConfiguration: connection, streamConfiguration: stream
    ) { channel in
      channel.eventLoop.makeCompletedFuture {
        let (services, connection) = bound.value
        let id = try channel.syncOptions?.getOption(HTTP2StreamChannelOptions.streamID)
        try channel.pipeline.syncOperations.addHandler(
          HTTP2StreamHandler(services, connection, id: id ?? .rootStream))
      }
    }
    try channel.pipeline.syncOperations.addHandler(handler)
  }

  /// 256 KiB: what a client may send of one body before the function has taken any.
  private static let window = 256 * 1024
}

/// An HTTP/2 connection as a whole: how long it may be idle, and how it ends.
final class HTTP2ConnectionHandler: ChannelInboundHandler, SweptConnection {
  typealias InboundIn = HTTP2Frame
  typealias OutboundOut = HTTP2Frame

  private let services: LoopServices
  private var channel: (any Channel)?
  private var openStreams = 0
  private var lastStream = HTTP2StreamID.rootStream
  private var idleSince: HearthInstant
  private var isEnding = false

  init(_ services: LoopServices) {
    self.services = services
    idleSince = services.now
  }

  func handlerAdded(context: ChannelHandlerContext) {
    channel = context.channel
    services.add(self)
  }

  func channelInactive(context: ChannelHandlerContext) {
    services.remove(self)
    context.fireChannelInactive()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case ChannelEvent.inputClosed = event { context.close(promise: nil) }
    context.fireUserInboundEventTriggered(event)
  }

  func streamOpened(_ id: HTTP2StreamID) {
    openStreams += 1
    lastStream = max(lastStream, id)
  }

  func streamClosed() {
    openStreams -= 1
    idleSince = services.now
    if isEnding, openStreams == 0 { channel?.close(promise: nil) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // What concerns one stream has ended that stream already.
    if error is NIOHTTP2Errors.StreamError { return }
    context.close(promise: nil)
  }

  func timePassed(now: HearthInstant) {
    if openStreams == 0, idleSince.duration(to: now) > services.limits.keepAliveTimeout { drain() }
  }

  /// Takes no further stream, and ends with the last one.
  func drain() {
    guard !isEnding, let channel else { return }
    isEnding = true
    let goAway = HTTP2Frame(
      streamID: .rootStream, payload: .goAway(lastStreamID: lastStream, errorCode: .noError, opaqueData: nil))
    channel.writeAndFlush(goAway, promise: nil)
    if openStreams == 0 { channel.close(promise: nil) }
  }
}
