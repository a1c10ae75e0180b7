import Foundation
import HearthCore

/// The machine's monotonic clock (clock_gettime(2), CLOCK_MONOTONIC): the one real clock of a gateway.
struct SystemClock: HearthClock {
  var now: HearthInstant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return HearthInstant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  var minimumResolution: Duration { .nanoseconds(1) }

  func sleep(until deadline: HearthInstant, tolerance: Duration?) async throws {
    try await ContinuousClock().sleep(for: now.duration(to: deadline), tolerance: tolerance)
  }
}
