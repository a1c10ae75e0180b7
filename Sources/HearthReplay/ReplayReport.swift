import Foundation
import HearthCore

/// What a replay came to.
public struct ReplayReport: Sendable {
  public struct Function: Sendable {
    public var requests = 0
    /// Requests that waited for a worker to start and were its first.
    public var cold = 0
    public var refused = 0
  }

  public let length: Duration
  public internal(set) var functions: [Function] = []
  public internal(set) var starts = 0
  public internal(set) var prewarms = 0
  /// Idle workers that made room for others.
  public internal(set) var reclaimed = 0
  public internal(set) var workersMax = 0
  /// Time that workers were ready without a request, and the same times their memory.
  public internal(set) var idleSeconds = 0.0
  public internal(set) var idleByteSeconds = 0.0
  /// Time of all workers from their start to their end.
  public internal(set) var workerSeconds = 0.0
  public internal(set) var timeline: Timeline
  private var waits = WaitTimes()

  init(length: Duration, timelineParts: Int) {
    self.length = length
    timeline = Timeline(length: length, parts: timelineParts)
  }

  public var requests: Int { functions.reduce(0) { $0 + $1.requests } }
  public var cold: Int { functions.reduce(0) { $0 + $1.cold } }
  public var refused: Int { functions.reduce(0) { $0 + $1.refused } }
  public var coldShare: Double { requests > 0 ? Double(cold) / Double(requests) : 0 }

  /// The share of cold starts that this share of the functions with requests does not exceed.
  public func coldShare(quantile: Double) -> Double {
    let shares = functions.filter { $0.requests > 0 }.map { Double($0.cold) / Double($0.requests) }.sorted()
    guard !shares.isEmpty else { return 0 }
    return shares[min(shares.count - 1, Int(Double(shares.count) * quantile))]
  }

  /// The wait for a worker that this share of the requests does not exceed.
  public func wait(quantile: Double) -> Duration { waits.quantile(quantile) }

  mutating func addWait(_ wait: Duration) { waits.add(wait) }

  mutating func noteAlive(_ count: Int) { workersMax = max(workersMax, count) }

  mutating func book(time: Double, bytes: Int64, isIdle: Bool) {
    workerSeconds += time
    guard isIdle else { return }
    idleSeconds += time
    idleByteSeconds += time * Double(bytes)
  }
}

/// Waits, to within 2 %: a histogram whose bins grow by that much from a microsecond on.
struct WaitTimes: Sendable {
  private static let growth = 1.02
  private var none = 0
  private var bins: [Int] = []
  private var count = 0

  mutating func add(_ wait: Duration) {
    count += 1
    guard wait > .microseconds(1) else {
      none += 1
      return
    }
    let bin = Int(log(Double(wait.nanoseconds) / 1_000) / log(WaitTimes.growth))
    if bin >= bins.count { bins += Array(repeating: 0, count: bin - bins.count + 1) }
    bins[bin] += 1
  }

  func quantile(_ share: Double) -> Duration {
    var seen = none
    let rank = Int(Double(count) * share)
    guard seen <= rank else { return .zero }
    for (bin, number) in bins.enumerated() {
      seen += number
      if seen > rank { return .nanoseconds(Int64(1_000 * pow(WaitTimes.growth, Double(bin) + 0.5))) }
    }
    return .zero
  }
}
