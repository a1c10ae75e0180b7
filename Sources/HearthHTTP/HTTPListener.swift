import HearthCore
import HearthHTTP1
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// The data plane's listener.
public final class HTTPListener: Sendable {
  private let channel: any Channel
  private let services: [NIOLoopBound<LoopServices>]
  private let sweeps: [RepeatedTask]
  private let accessLog: AccessLog?

  /// Where it listens, with the port that was picked for port 0.
  public let address: SocketAddress

  /// Takes the address; who connects waits until `accept`. Throws `configuration_invalid` when it cannot be used.
  public static func bind(
    host: String, port: Int, group: MultiThreadedEventLoopGroup, limits: HTTPLimits, router: any FunctionRouter,
    clock: any HearthClock, certificate: TLSCertificate? = nil, accessLog: AccessLog? = nil
  ) async throws -> HTTPListener {
    let gate = RequestGate(limits: limits, router: router)
    var services: [ObjectIdentifier: NIOLoopBound<LoopServices>] = [:]
    var sweeps: [RepeatedTask] = []
    for loop in group.makeIterator() {
      let bound = try await loop.submit {
        NIOLoopBound(LoopServices(gate: gate, clock: clock, loop: loop, accessLog: accessLog), eventLoop: loop)
      }.get()
      services[ObjectIdentifier(loop)] = bound
      sweeps.append(
        loop.scheduleRepeatedTask(initialDelay: LoopServices.sweepInterval, delay: LoopServices.sweepInterval) { _ in
          bound.value.sweep()
        })
    }
    let byLoop = services
    let count = ConnectionCount(max: limits.connectionsMax)
    do {
      let channel = try await ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 1024)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .serverChannelOption(.autoRead, value: false)
        .serverChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(AcceptPauseHandler())
          }
        }
        .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        .childChannelOption(.allowRemoteHalfClosure, value: true)
        .childChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            guard count.enter() else { return try channel.pipeline.syncOperations.addHandler(OverloadHandler()) }
            channel.closeFuture.whenComplete { _ in count.leave() }
            let services = byLoop[ObjectIdentifier(channel.eventLoop)]!
            if let certificate {
              try configure(channel, certificate, services)
            } else {
              try channel.pipeline.syncOperations.addHandler(HTTPConnectionHandler(services: services.value))
            }
          }
        }
        .bind(host: host, port: port).get()
      return HTTPListener(channel: channel, services: Array(byLoop.values), sweeps: sweeps, accessLog: accessLog)
    } catch {
      throw HearthError(
        .configurationInvalid, "The data plane cannot listen on \(host):\(port).",
        hint: "Choose another port, or stop what uses it.", cause: String(describing: error))
    }
  }

  /// TLS first; what it agrees on decides the protocol. A handshake takes no longer than a head may.
  private static func configure(
    _ channel: any Channel, _ certificate: TLSCertificate, _ services: NIOLoopBound<LoopServices>
  ) throws {
    let overdue = channel.eventLoop.assumeIsolated().scheduleTask(
      in: .nanoseconds(services.value.limits.headTimeout.nanoseconds)
    ) {
      channel.close(promise: nil)
    }
    channel.closeFuture.whenComplete { _ in overdue.cancel() }
    try channel.pipeline.syncOperations.addHandlers([
      NIOSSLServerHandler(context: certificate.context),
      ApplicationProtocolNegotiationHandler { result, channel in
        overdue.cancel()
        return channel.eventLoop.makeCompletedFuture {
          if case .negotiated("h2") = result {
            try HTTP2.configure(channel, services.value)
          } else {
            try channel.pipeline.syncOperations.addHandler(
              HTTPConnectionHandler(services: services.value, isSecure: true))
          }
        }
      },
    ])
  }

  private init(
    channel: any Channel, services: [NIOLoopBound<LoopServices>], sweeps: [RepeatedTask], accessLog: AccessLog?
  ) {
    self.accessLog = accessLog
    self.channel = channel
    self.services = services
    self.sweeps = sweeps
    address = channel.localAddress!
  }

  /// Lets connections in.
  public func accept() async throws { try await channel.setOption(.autoRead, value: true).get() }

  /// Accepts no more connections, and ends each open one with its current response.
  public func drain() async {
    try? await channel.close()
    for bound in services {
      try? await bound.eventLoop.submit { bound.value.drain() }.get()
    }
  }

  /// Ends what runs beside the connections; the access log is on disk afterwards.
  public func stop() async {
    for sweep in sweeps { sweep.cancel() }
    for bound in services {
      try? await bound.eventLoop.submit { bound.value.accessLines?.handOver() }.get()
    }
    guard let accessLog else { return }
    try? await NIOThreadPool.singleton.runIfActive { accessLog.flush() }
  }
}

/// Counts the connections of a listener.
private final class ConnectionCount: Sendable {
  private let max: Int
  private let count = NIOLockedValueBox(0)

  init(max: Int) { self.max = max }

  func enter() -> Bool {
    count.withLockedValue { count in
      guard count < max else { return false }
      count += 1
      return true
    }
  }

  func leave() { count.withLockedValue { $0 -= 1 } }
}

/// Stops accepting for a while when a connection cannot be accepted, for want of descriptors or memory: the one that
/// waits would be tried again at once, and without end.
private final class AcceptPauseHandler: ChannelInboundHandler {
  typealias InboundIn = any Channel

  /// 100 ms: short for a client, long for a processor.
  private static let pause = TimeAmount.milliseconds(100)

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    let channel = context.channel
    try? channel.syncOptions?.setOption(.autoRead, value: false)
    channel.eventLoop.assumeIsolated().scheduleTask(in: AcceptPauseHandler.pause) {
      try? channel.syncOptions?.setOption(.autoRead, value: true)
    }
  }
}

/// Answers one connection too many.
private final class OverloadHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  func channelActive(context: ChannelHandlerContext) {
    let error = HearthError(.connectionsExhausted, "The gateway has no connection left.", hint: "Try again later.")
    let body = ErrorEnvelope.json(error, request: "", source: .gateway)
    let head =
      "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
      + "content-length: \(body.utf8.count)\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
    let channel = context.channel
    channel.writeAndFlush(ByteBuffer(string: head + body)).whenComplete { _ in channel.close(promise: nil) }
  }
}
