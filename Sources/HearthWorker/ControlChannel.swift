import CPlatform
import Foundation
import HearthCore
import HearthWorkerProtocol
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// The gateway's end of a control socket. Lines that arrive are handed on; messages are sent with descriptors from any
/// thread.
final class ControlChannel: Sendable {
  /// A control socket takes a message at once; one that does not within this time belongs to a process that hangs.
  private static let sendTimeoutMilliseconds: Int32 = 1000

  private let descriptor: NIOLockedValueBox<Int32?>
  private let channel: any Channel

  /// Takes ownership of the socket. `received` and `closed` are called on the loop.
  static func open(
    _ socket: Int32, on loop: any EventLoop, received: @escaping @Sendable (ByteBuffer) -> Void,
    closed: @escaping @Sendable () -> Void
  ) throws -> EventLoopFuture<ControlChannel> {
    // A descriptor of its own for sending: NIO's may be closed at any time.
    let sender = fcntl(socket, F_DUPFD_CLOEXEC, 3)
    guard sender >= 0 else {
      Glibc.close(socket)
      throw HearthError(.internalError, "The gateway has no descriptor left for a worker.")
    }
    return ClientBootstrap(group: loop)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(LineHandler(received: received, closed: closed))
        }
      }
      .withConnectedSocket(socket)
      .map { ControlChannel(descriptor: sender, channel: $0) }
  }

  private init(descriptor: Int32, channel: any Channel) {
    self.descriptor = NIOLockedValueBox(descriptor)
    self.channel = channel
    channel.closeFuture.whenComplete { [self] _ in close() }
  }

  /// Sends a message whole; false when the other side is gone or takes nothing more.
  @discardableResult
  func send(_ message: some ControlMessageCoding, descriptors: [Int32] = []) -> Bool {
    guard let bytes = try? ControlCodec.encode(message) else { return false }
    return descriptor.withLockedValue { descriptor in
      guard let descriptor else { return false }
      return ControlChannel.send(bytes[...], descriptors, to: descriptor)
    }
  }

  private static func send(_ bytes: ArraySlice<UInt8>, _ descriptors: [Int32], to socket: Int32) -> Bool {
    var rest = bytes
    var descriptors = descriptors
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes { raw in
        hearth_send_descriptors(socket, raw.baseAddress, raw.count, descriptors, Int32(descriptors.count))
      }
      if sent > 0 {
        rest = rest.dropFirst(sent)
        descriptors = []
        continue
      }
      guard errno == EAGAIN else { return false }
      var waiting = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
      guard poll(&waiting, 1, sendTimeoutMilliseconds) > 0 else { return false }
    }
    return true
  }

  func close() {
    descriptor.withLockedValue { value in
      if let value { _ = Glibc.close(value) }
      value = nil
    }
    channel.close(promise: nil)
  }
}

/// Cuts a stream into lines.
private final class LineHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let received: (ByteBuffer) -> Void
  private let closed: () -> Void
  private var buffer = ByteBuffer()

  init(received: @escaping (ByteBuffer) -> Void, closed: @escaping () -> Void) {
    self.received = received
    self.closed = closed
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    buffer.writeBuffer(&bytes)
    while let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
      let line = buffer.readSlice(length: end - buffer.readerIndex)!
      buffer.moveReaderIndex(forwardBy: 1)
      received(line)
    }
    if buffer.readableBytes > ControlMessage.lengthMax { context.close(promise: nil) }
    buffer.discardReadBytes()
  }

  func channelInactive(context: ChannelHandlerContext) { closed() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
