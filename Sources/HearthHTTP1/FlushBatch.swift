import NIOConcurrencyHelpers
import NIOCore

/// Something with a channel that a `FlushBatch` flushes.
public protocol FlushTarget: AnyObject {
  func flushNow()
}

/// Hands what was written to the channels of one event loop to the system together, once everything that has arrived
/// at that loop is read.
///
/// A write that wakes the process behind a socket costs several times what one does to a process that runs already. Of
/// writes that follow one another closely only the first wakes it. A loop with one event flushes right behind it.
public final class FlushBatch {
  private static let batches = NIOLockedValueBox<[ObjectIdentifier: NIOLoopBound<FlushBatch>]>([:])

  private let loop: NIOIsolatedEventLoop
  private var targets: [any FlushTarget] = []

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

  /// Flushes it with the others. Adding it more than once does no harm.
  public func add(_ target: any FlushTarget) {
    if targets.isEmpty { loop.execute { self.flush() } }
    targets.append(target)
  }

  private func flush() {
    let flushed = targets
    targets.removeAll(keepingCapacity: true)
    for target in flushed { target.flushNow() }
  }
}
