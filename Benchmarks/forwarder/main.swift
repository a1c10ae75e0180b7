// The least that a proxy on SwiftNIO can cost: hands the bytes of each client's connection to one of its own to the
// worker's socket, and back, and looks at none of them. `make bench-http` runs it beside the front ends.
//
// Arguments: the worker's socket, and the port of loopback to listen on.
import NIOCore
import NIOPosix

/// Hands what arrives on to the other connection.
final class Pump: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private var peer: (any Channel)?
  private var held: [ByteBuffer] = []

  func begin(to peer: any Channel) {
    self.peer = peer
    for bytes in held { peer.writeAndFlush(bytes, promise: nil) }
    held = []
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = unwrapInboundIn(data)
    if let peer { peer.writeAndFlush(bytes, promise: nil) } else { held.append(bytes) }
  }

  func channelInactive(context: ChannelHandlerContext) { peer?.close(promise: nil) }
}

let socket = CommandLine.arguments[1]
let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1)
let listener = try ServerBootstrap(group: loop)
  .serverChannelOption(.backlog, value: 4096)
  .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
  .childChannelInitializer { client in
    client.eventLoop.makeCompletedFuture {
      let up = Pump()
      try client.pipeline.syncOperations.addHandler(up)
      ClientBootstrap(group: client.eventLoop)
        .connect(unixDomainSocketPath: socket)
        .assumeIsolated()
        .whenSuccess { worker in
          let down = Pump()
          try? worker.pipeline.syncOperations.addHandler(down)
          down.begin(to: client)
          up.begin(to: worker)
        }
    }
  }
  .bind(host: "127.0.0.1", port: Int(CommandLine.arguments[2])!)
  .wait()
try listener.closeFuture.wait()
