import HearthCore

/// What a function's idle times were, and what they say about the next one.
struct IdleTimes: Sendable {
  /// 200 gaps: enough for a distribution, few enough to follow a change of habit.
  private static let recentMax = 200
  /// 1 s: plans are made at most this often, so that a busy function's short rests cost nothing.
  private static let planInterval = Duration.seconds(1)

  /// 2 s: the least a start is taken to cost, so that quick starts do not come and go by the second.
  private static let startCostMin = Duration.seconds(2)

  private var histogram = IdleHistogram()
  private var forecast = ArrivalForecast()
  /// The last gaps, the oldest at `oldest` once it is full.
  private var recent: [Duration] = []
  private var oldest = 0
  private var planned: HearthInstant?
  private var plannedFor: FunctionPolicy.KeepAlive?
  private(set) var current = IdlePlan(spans: [])

  /// A rest of this length has ended.
  mutating func observe(_ gap: Duration) {
    histogram.observe(gap)
    forecast.observe(gap)
    if recent.count < IdleTimes.recentMax {
      recent.append(gap)
    } else {
      recent[oldest] = gap
      oldest = (oldest + 1) % IdleTimes.recentMax
    }
  }

  /// Makes the plan for a rest that begins now.
  ///
  /// - Parameter startTime: how long a start takes; nil before the first.
  mutating func plan(_ policy: FunctionPolicy, startTime: Duration?, now: HearthInstant) {
    if let planned, plannedFor == policy.keepAlive, planned.duration(to: now) < IdleTimes.planInterval { return }
    planned = now
    plannedFor = policy.keepAlive
    switch policy.keepAlive {
    case .adaptive:
      current = histogram.plan(last: lastGaps(20)) ?? .until(policy.coldStartCost)
    case .cost:
      current = .until(IdleTimes.cheapest(of: recent, cost: policy.coldStartCost))
    case .learned:
      current = forecast.plan(cost: policy.coldStartCost, startCost: max(startTime ?? .zero, IdleTimes.startCostMin))
    case .fixed, .forever: break
    }
  }

  /// The policy changed: the next plan is made anew.
  mutating func forgetPlan() { planned = nil }

  private func lastGaps(_ count: Int) -> [Duration] {
    let ordered = recent[oldest...] + recent[..<oldest]
    return Array(ordered.suffix(count))
  }

  /// The keep-alive T that would have cost least over these gaps, where a cold start costs as much as keeping a worker
  /// for `cost`: the minimum of cost · P(gap > T) + E[min(gap, T)]. It lies at a gap or at zero.
  static func cheapest(of gaps: [Duration], cost: Duration) -> Duration {
    // 8: below, one gap more or less would decide.
    guard gaps.count >= 8 else { return cost }
    let sorted = gaps.map(\.seconds).sorted()
    var best = (time: 0.0, cost: cost.seconds * Double(sorted.count))
    var kept = 0.0
    for (index, gap) in sorted.enumerated() {
      kept += gap
      let longer = Double(sorted.count - index - 1)
      let total = cost.seconds * longer + kept + gap * longer
      if total < best.cost { best = (gap, total) }
    }
    // A little more, so that a gap as long as the longest of these is within it.
    return .seconds(best.time * 1.05 + 1)
  }
}

/// The hybrid histogram of idle times: Shahrad et al., "Serverless in the Wild", ATC 2020, section 4.2.
struct IdleHistogram: Sendable {
  /// 240 bins of one minute.
  private static let bins = 240
  private static let binWidth = Duration.seconds(60)
  /// 10: fewer gaps say nothing.
  private static let gapsMin = 10
  /// 2: below this coefficient of variation of the bins' counts, no gap is more usual than others.
  private static let variationMin = 2.0

  private var counts: [UInt32] = []
  private var outside = 0
  private var inside = 0

  mutating func observe(_ gap: Duration) {
    if counts.isEmpty { counts = Array(repeating: 0, count: IdleHistogram.bins) }
    let bin = Int(gap.nanoseconds / IdleHistogram.binWidth.nanoseconds)
    if bin < IdleHistogram.bins {
      counts[bin] &+= 1
      inside += 1
    } else {
      outside += 1
    }
  }

  /// What to do in the next rest; nil when the gaps so far do not say.
  ///
  /// - Parameter last: the last gaps, for functions whose gaps are mostly longer than the histogram.
  func plan(last: [Duration]) -> IdlePlan? {
    guard inside + outside >= IdleHistogram.gapsMin else { return nil }
    if outside > inside {
      let median = last.sorted()[last.count / 2]
      return IdlePlan(spans: [IdlePlan.Span(from: median * 0.85, until: median * 1.15)])
    }
    guard variation >= IdleHistogram.variationMin else { return nil }
    let head = IdleHistogram.binWidth * percentile(0.05)
    let tail = IdleHistogram.binWidth * (percentile(0.99) + 1)
    return IdlePlan(spans: [IdlePlan.Span(from: head * 0.9, until: tail * 1.1)])
  }

  /// The bin that this share of the gaps within the histogram does not exceed.
  private func percentile(_ share: Double) -> Int {
    let rank = Double(inside) * share
    var seen = 0.0
    for (bin, count) in counts.enumerated() {
      seen += Double(count)
      if seen >= rank, seen > 0 { return bin }
    }
    return counts.count - 1
  }

  private var variation: Double {
    let mean = Double(inside) / Double(counts.count)
    guard mean > 0 else { return 0 }
    let square = counts.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(counts.count)
    return square.squareRoot() / mean
  }
}

extension FunctionPolicy.KeepAlive {
  /// Whether it depends on the idle times so far.
  var learns: Bool {
    switch self {
    case .adaptive, .cost, .learned: true
    case .fixed, .forever: false
    }
  }
}
