import HearthCore

/// How many workers the traffic of the last windows asks for.
///
/// After Knative's pod autoscaler (a stable and a panic window) and Cortex's (stabilisation, factors and tolerances per
/// decision). It looks at the pool every `tick` while there is something to see; starts from zero and answers to a
/// queue do not wait for it.
struct Scaler: Sendable {
  /// What one look at the pool came to.
  struct Outcome: Sendable {
    /// As many workers as the pool should have.
    var target: Int
    /// What the windows ask for, before any limit.
    var wanted: Int
    /// The knob that kept the target from what was wanted; nil when nothing did.
    var limit: String?
  }

  var meter = DemandMeter()
  private(set) var panicUntil: HearthInstant?
  private(set) var mean = 0.0
  private(set) var panicMean = 0.0
  private(set) var wanted = 0
  private var highest = SlidingExtreme.maximum
  private var lowest = SlidingExtreme.minimum

  func isPanicking(now: HearthInstant) -> Bool { panicUntil.map { now < $0 } ?? false }

  /// The first request after a rest: earlier recommendations are void, and the pool as it is stands for them.
  mutating func restart(pool: Int, _ policy: FunctionPolicy, now: HearthInstant) {
    meter.restart(now: now)
    highest.reset()
    lowest.reset()
    _ = highest.add(pool, window: policy.downscaleStabilization, now: now)
    _ = lowest.add(max(1, pool), window: policy.upscaleStabilization, now: now)
    panicUntil = nil
  }

  /// Looks at a pool of `pool` workers and says how many there should be.
  ///
  /// - Parameter mayPanic: false while what waits will be served before another worker could start.
  mutating func look(at pool: Int, _ policy: FunctionPolicy, mayPanic: Bool, now: HearthInstant) -> Outcome {
    meter.mark(now: now, window: policy.window)
    mean = meter.mean(over: policy.window, now: now)
    panicMean = meter.mean(over: policy.panicWindow, now: now)
    let stableNeed = mean / policy.inFlightTarget
    let panicNeed = panicMean / policy.inFlightTarget
    if mayPanic, Scaler.whole(panicNeed) > pool, panicNeed >= policy.panicThreshold * Double(max(1, pool)) {
      panicUntil = now.advanced(by: policy.window)
    }
    let isPanic = isPanicking(now: now)
    let need = isPanic ? max(stableNeed, panicNeed) : stableNeed
    wanted = Scaler.whole(need)
    let most = highest.add(wanted, window: policy.downscaleStabilization, now: now)
    let least = lowest.add(wanted, window: policy.upscaleStabilization, now: now)
    var outcome = Outcome(target: wanted, wanted: wanted)
    if wanted > pool {
      growth(of: &outcome, need: need, pool: pool, least: max(least, pool), policy)
    } else if wanted < pool {
      cut(of: &outcome, need: need, pool: pool, most: min(most, pool), isPanic: isPanic, policy)
    }
    return outcome
  }

  private func growth(of outcome: inout Outcome, need: Double, pool: Int, least: Int, _ policy: FunctionPolicy) {
    if need <= Double(pool) * (1 + policy.upscaleTolerance) {
      return outcome.limit(to: pool, "upscale-tolerance")
    }
    if least < outcome.target { outcome.limit(to: least, "upscale-stabilization") }
    let ceiling = max(Int(Double(pool) * policy.upscaleFactorMax), pool + 1)
    if ceiling < outcome.target { outcome.limit(to: ceiling, "max-upscale-factor") }
    if policy.workersMax < outcome.target { outcome.limit(to: max(pool, policy.workersMax), "max-workers") }
  }

  private func cut(
    of outcome: inout Outcome, need: Double, pool: Int, most: Int, isPanic: Bool, _ policy: FunctionPolicy
  ) {
    if isPanic { return outcome.limit(to: pool, "panic-window") }
    if need >= Double(pool) * (1 - policy.downscaleTolerance) {
      return outcome.limit(to: pool, "downscale-tolerance")
    }
    if most > outcome.target { outcome.limit(to: most, "downscale-stabilization") }
    let floor = min(Int(Double(pool) * policy.downscaleFactorMax), pool - 1)
    if floor > outcome.target { outcome.limit(to: floor, "max-downscale-factor") }
  }

  /// Rounded up, with a millionth to spare for the error of the mean.
  private static func whole(_ need: Double) -> Int { Int((need - 1e-6).rounded(.up)) }
}

extension Scaler.Outcome {
  fileprivate mutating func limit(to target: Int, _ knob: String) {
    self.target = target
    limit = knob
  }
}
