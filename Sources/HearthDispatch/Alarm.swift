import HearthCore
import NIOCore

/// The one timer of a schedule: it asks for a wake-up only when that is earlier than the one it asked for before. Kept
/// with the schedule, under its lock.
struct Alarm {
  private var pending: (instant: HearthInstant, task: Scheduled<Void>)?

  /// Rings at `instant`, unless it does so earlier already: two threads may carry out their wake-ups in another order
  /// than they were decided in.
  mutating func set(
    _ instant: HearthInstant, now: HearthInstant, on loop: any EventLoop, ring: @escaping @Sendable () -> Void
  ) {
    if let pending, pending.instant <= instant { return }
    pending?.task.cancel()
    let delay = TimeAmount.nanoseconds(max(.zero, now.duration(to: instant)).nanoseconds)
    pending = (instant, loop.scheduleTask(in: delay, ring))
  }

  /// It has rung.
  mutating func rang() { pending = nil }
}
