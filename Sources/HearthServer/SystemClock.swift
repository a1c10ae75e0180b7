import Foundation
import HearthCore

/// The machine's monotonic clock (clock_gettime(2), CLOCK_MONOTONIC): the one real clock of a gateway.
struct SystemClock: HearthClock {
  var now: HearthInstant { HearthInstant(nanoseconds: SystemClock.read(CLOCK_MONOTONIC)) }

  var wallOffset: Duration { .nanoseconds(SystemClock.read(CLOCK_REALTIME) - SystemClock.read(CLOCK_MONOTONIC)) }

  private static func read(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  var minimumResolution: Duration { .nanoseconds(1) }

  func sleep(until deadline: HearthInstant, tolerance: Duration?) async throws {
    try await ContinuousClock().sleep(for: now.duration(to: deadline), tolerance: tolerance)
  }
}
