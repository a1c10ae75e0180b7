import NIOConcurrencyHelpers
import NIOCore

/// Hands what was written to the channels of one event loop to the system together, once everything that has arrived
/// at that loop is read.
///
/// A write that wakes the process behind a socket costs several times what one does to a process that runs already. Of
/// writes that follow one another closely only the first wakes it. A loop with one event flushes right behind it.
public final class FlushBatch {
  private static let batches = NIOLockedValueBox<[ObjectIdentifier: NIOLoopBound<FlushBatch>]>([:])

  private let loop: NIOIsolatedEventLoop
  private var channels: [any Channel] = []

  private init(_ loop: any EventLoop) { self.loop = loop.assumeIsolated() }

  /// The batch of a loop. Call on that loop.
  public static func of(_ loop: any EventLoop) -> FlushBatch {
    batches.withLockedValue { batches in
      let key = ObjectIdentifier(loop)
      if let found = batches[key] { return found.value }
      let batch = NIOLoopBound(FlushBatch(loop), eventLoop: loop)
      batches[key] = batch
      return batch.value
    }
  }

  /// Flushes the channel with the others. Adding it more than once does no harm.
  public func add(_ channel: any Channel) {
    if channels.isEmpty { loop.execute { self.flush() } }
    channels.append(channel)
  }

  private func flush() {
    let flushed = channels
    channels.removeAll(keepingCapacity: true)
    for channel in flushed { channel.flush() }
  }
}
