import HearthCore

/// An exponentially weighted mean of durations: recent ones count most.
struct Estimate: Sendable {
  /// 0.2: about the last ten samples matter.
  private static let weight = 0.2
  private(set) var value: Duration?

  mutating func observe(_ sample: Duration) {
    guard let value else {
      self.value = sample
      return
    }
    let mixed = Double(value.nanoseconds) * (1 - Estimate.weight) + Double(sample.nanoseconds) * Estimate.weight
    self.value = .nanoseconds(Int64(mixed))
  }
}

/// What failed starts do to the next ones: pause longer each time, then give the reason to callers at once.
struct LoadFailures: Sendable {
  private(set) var count = 0
  private(set) var reason = ""
  private(set) var retryAt: HearthInstant?
  private var kind = FunctionSchedule.StartFailure.failed

  var isRemembered: Bool { count >= FunctionSchedule.loadAttemptsMax }

  mutating func record(_ kind: FunctionSchedule.StartFailure, _ reason: String, now: HearthInstant) {
    // What is larger than the whole budget stays so.
    count = kind == .tooLarge ? FunctionSchedule.loadAttemptsMax : count + 1
    self.kind = kind
    self.reason = reason
    let pause =
      isRemembered
      ? FunctionSchedule.loadFailureMemory : FunctionSchedule.loadBackoff * Int(1 << (count - 1))
    retryAt = now.advanced(by: pause)
  }

  mutating func clear() { self = LoadFailures() }

  func allowsStart(now: HearthInstant) -> Bool { retryAt.map { $0 <= now } ?? true }

  /// What to tell a request that waits for a start in vain.
  func rejection(now: HearthInstant) -> FunctionSchedule.Rejection {
    guard kind == .failed else { return .memoryExhausted(reason: reason) }
    return .loadFailed(reason: reason, retryAfter: retryAt.map { max(.zero, now.duration(to: $0)) } ?? .zero)
  }
}
