import DequeModule
import HearthCore

/// How many requests a function had over time, kept as an integral: the mean over a recent window is a subtraction.
struct DemandMeter: Sendable {
  private struct Mark {
    let at: HearthInstant
    let total: Double
  }

  /// Request-seconds since the first request after a rest.
  private var total = 0.0
  /// What `total` was at earlier ticks, oldest first.
  private var marks: Deque<Mark> = []

  /// From one instant to another there were `level` requests.
  mutating func add(_ level: Double, from: HearthInstant, to: HearthInstant) {
    // In plain numbers: this is every request, twice.
    total += level * Double(to.nanoseconds - from.nanoseconds) * 1e-9
  }

  /// Begins after a rest: what was before counts no more.
  mutating func restart(now: HearthInstant) {
    marks = [Mark(at: now, total: total)]
  }

  /// Remembers this instant, and forgets what is older than `window`.
  mutating func mark(now: HearthInstant, window: Duration) {
    marks.append(Mark(at: now, total: total))
    while marks.count > 2, marks[1].at.duration(to: now) >= window { marks.removeFirst() }
  }

  /// The mean over the last `window`, or since the first request if that is not so long ago.
  func mean(over window: Duration, now: HearthInstant) -> Double {
    guard let mark = marks.last(where: { $0.at.duration(to: now) >= window }) ?? marks.first else { return 0 }
    let length = mark.at.duration(to: now).seconds
    return length > 0 ? max(0, (total - mark.total) / length) : 0
  }
}

/// The largest or smallest of the values of a recent time, in constant time on average: a deque of those that can still
/// become it (the monotonic queue).
struct SlidingExtreme: Sendable {
  private var candidates: Deque<(at: HearthInstant, value: Int)> = []
  private let isLarger: Bool

  static var maximum: SlidingExtreme { SlidingExtreme(isLarger: true) }
  static var minimum: SlidingExtreme { SlidingExtreme(isLarger: false) }

  private init(isLarger: Bool) { self.isLarger = isLarger }

  /// Adds a value and returns the extreme of the last `window`, this one included.
  mutating func add(_ value: Int, window: Duration, now: HearthInstant) -> Int {
    while let last = candidates.last, isLarger ? last.value <= value : last.value >= value { candidates.removeLast() }
    candidates.append((now, value))
    while candidates.count > 1, candidates[0].at.duration(to: now) > window { candidates.removeFirst() }
    return candidates[0].value
  }

  mutating func reset() { candidates.removeAll(keepingCapacity: true) }
}
