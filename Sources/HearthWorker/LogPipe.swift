import Foundation
import HearthCore
import NIOCore
import NIOPosix

/// Reads what a worker or zygote prints and appends it to the function's log.
enum LogPipe {
  /// Takes ownership of the reading end. `worker`, asked on the loop, says whose lines they are.
  static func open(
    _ descriptor: Int32, on loop: any EventLoop, log: FunctionLog, worker: @escaping @Sendable () -> WorkerID?
  ) {
    NIOPipeBootstrap(group: loop)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(LogHandler(log: log, worker: worker))
        }
      }
      .takingOwnershipOfDescriptor(input: descriptor)
      .whenFailure { _ in close(descriptor) }
  }
}

private final class LogHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  /// The runtime marks its lines: RS request US text.
  private static let recordSeparator = UInt8(0x1E)
  private static let unitSeparator = UInt8(0x1F)

  private let log: FunctionLog
  private let worker: () -> WorkerID?
  private var buffer = ByteBuffer()

  init(log: FunctionLog, worker: @escaping () -> WorkerID?) {
    self.log = log
    self.worker = worker
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    buffer.writeBuffer(&bytes)
    while let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
      emit(buffer.readSlice(length: end - buffer.readerIndex)!)
      buffer.moveReaderIndex(forwardBy: 1)
    }
    if buffer.readableBytes > 4 * FunctionLog.lineMax { emit(buffer.readSlice(length: buffer.readableBytes)!) }
    buffer.discardReadBytes()
  }

  func channelInactive(context: ChannelHandlerContext) {
    if buffer.readableBytes > 0 { emit(buffer) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func emit(_ line: ByteBuffer) {
    let view = line.readableBytesView
    var request = ""
    var text = view[...]
    if view.first == LogHandler.recordSeparator, let unit = view.firstIndex(of: LogHandler.unitSeparator) {
      request = String(decoding: view[view.index(after: view.startIndex)..<unit], as: UTF8.self)
      text = view[view.index(after: unit)...]
    }
    log.append(String(decoding: text, as: UTF8.self), worker: worker(), request: request)
  }
}
