import HearthCore

import func Glibc.exp
import func Glibc.log

/// When a function's next request will come, as a distribution over the length of its rest, learned from the rests so
/// far; and the plan of least expected cost that follows from it.
///
/// The distribution is estimated twice from one histogram of decaying counts: sharply, for functions that are called by
/// a timer, and blurred over a factor of two each way, for all others. Each rest that ends tells which of the two had
/// expected it more, and they are mixed by that trust (exponentially forgotten; a mixture of two experts by
/// likelihood). The plan is a dynamic programme over the bins with two states, warm and cold: a second warm costs a
/// second, a request that finds the function cold costs `cost`, and a start ahead of a request costs `startCost`.
/// docs/policies.md compares it with the hybrid histogram and others.
struct ArrivalForecast: Sendable {
  /// Bins of a second up to 20 s, then each a twentieth wider than the one before, up to four hours; one for the rest.
  private static let edges: [Float] = {
    var edges = (0...20).map { Float($0) }
    while edges.last! < 14_400 { edges.append(edges.last! * 1.05) }
    return edges
  }()
  private static let bins = edges.count - 1
  /// 7: how many bins to each side are averaged, twice: a triangle that reaches a factor of two each way.
  private static let blurReach = 7
  /// 300 rests: how far back counts matter.
  private static let decay: Float = 1 - 1 / 300
  /// How many rests the assumptions weigh: the blurred estimate's about the world, the sharp one's about the blurred.
  private static let priorWeight: Float = 4
  private static let blurredWeight: Float = 0.5
  /// 0.8: about the last five rests decide which estimate is trusted.
  private static let trustDecay = 0.8
  /// What was expected least is still expected this much.
  private static let probabilityMin: Float = 1e-6
  /// 100 s: without any rest seen, half of them are taken to be shorter than this; P(rest > t) = 100 / (100 + t).
  private static let prior: [Float] = {
    func longer(_ seconds: Float) -> Float { 100 / (100 + seconds) }
    return (0..<bins).map { longer(edges[$0]) - longer(edges[$0 + 1]) } + [longer(edges[bins])]
  }()

  private var counts: [Float] = []
  private var total: Float = 0
  /// The logarithm of how much more the sharp estimate is trusted.
  private var trust = 0.0
  private var sharp = ArrivalForecast.prior
  private var blurred = ArrivalForecast.prior
  /// Rests of less than a second since the last plan. A busy function has thousands, so they are only counted.
  private var shortRests = 0

  /// A rest has ended.
  mutating func observe(_ rest: Duration) {
    let seconds = Float(rest.seconds)
    guard seconds >= 1 else {
      shortRests += 1
      return
    }
    fold()
    add(at: ArrivalForecast.position(seconds), times: 1)
  }

  private mutating func fold() {
    guard shortRests > 0 else { return }
    add(at: 0.5, times: shortRests)
    shortRests = 0
  }

  /// Counts rests at a position among the bins, split between the two bins whose middles are nearest.
  private mutating func add(at position: Float, times: Int) {
    let last = ArrivalForecast.bins
    if counts.isEmpty { counts = Array(repeating: 0, count: last + 1) }
    let bin = min(last, Int(position))
    let (kept, trustKept) = (power(ArrivalForecast.decay, times), power(ArrivalForecast.trustDecay, times))
    let advantage = log(
      Double(
        (sharp[bin] + ArrivalForecast.probabilityMin) / (blurred[bin] + ArrivalForecast.probabilityMin)))
    trust = trust * trustKept + advantage * (1 - trustKept) / (1 - ArrivalForecast.trustDecay)
    let weight = (1 - kept) / (1 - ArrivalForecast.decay)
    for index in counts.indices { counts[index] *= kept }
    total = total * kept + weight
    guard bin < last else {
      counts[last] += weight
      return
    }
    let lower = (position - 0.5).rounded(.down)
    let share = position - 0.5 - lower
    counts[max(0, Int(lower))] += weight * (1 - share)
    counts[Int(lower) + 1] += weight * share
  }

  /// Where a length lies among the bins: the bin's number, and how far into it.
  private static func position(_ seconds: Float) -> Float {
    guard seconds < edges[bins] else { return Float(bins) }
    var (low, high) = (0, bins)
    while high - low > 1 {
      let middle = (low + high) / 2
      if edges[middle] <= seconds { low = middle } else { high = middle }
    }
    return Float(low) + (seconds - edges[low]) / (edges[low + 1] - edges[low])
  }

  /// The plan for a rest that begins now.
  ///
  /// - Parameters:
  ///   - cost: for how long a worker may be kept to spare one cold start.
  ///   - startCost: the same for a start ahead of a request: about how long a start takes.
  mutating func plan(cost: Duration, startCost: Duration) -> IdlePlan {
    fold()
    estimate()
    return cheapestPlan(expected: mixed, cost: Float(cost.seconds), startCost: Float(startCost.seconds))
  }

  private mutating func estimate() {
    let last = ArrivalForecast.bins
    let counts = self.counts.isEmpty ? Array(repeating: 0, count: last + 1) : self.counts
    var smooth = ArrivalForecast.averaged(ArrivalForecast.averaged(Array(counts[..<last])))
    smooth.append(counts[last])
    let (world, own) = (ArrivalForecast.priorWeight, ArrivalForecast.blurredWeight)
    for bin in 0...last {
      blurred[bin] = (smooth[bin] + world * ArrivalForecast.prior[bin]) / (total + world)
      sharp[bin] = (counts[bin] + own * blurred[bin]) / (total + own)
    }
  }

  /// Each value the mean of those around it; what would fall beyond an end stays at it.
  private static func averaged(_ values: [Float]) -> [Float] {
    var result = [Float](repeating: 0, count: values.count)
    let share = 1 / Float(2 * blurReach + 1)
    for (index, value) in values.enumerated() where value > 0 {
      for target in (index - blurReach)...(index + blurReach) {
        result[min(max(target, 0), values.count - 1)] += value * share
      }
    }
    return result
  }

  private var mixed: [Float] {
    let share = Float(1 / (1 + exp(-trust)))
    return zip(sharp, blurred).map { share * $0 + (1 - share) * $1 }
  }

  /// From the last bin to the first: what the rest costs from there on if the worker is warm, and if it is not.
  private func cheapestPlan(expected: [Float], cost: Float, startCost: Float) -> IdlePlan {
    let bins = ArrivalForecast.bins
    var (warm, cold) = (cost * expected[bins], cost * expected[bins])
    var surviving = expected[bins]
    var stays = [Bool](repeating: false, count: bins)
    var starts = stays
    for bin in (0..<bins).reversed() {
      let width = ArrivalForecast.edges[bin + 1] - ArrivalForecast.edges[bin]
      let kept = width * (surviving + expected[bin] / 2) + warm
      let left = cost * expected[bin] + cold
      surviving += expected[bin]
      stays[bin] = kept <= left
      let started = kept + startCost * surviving
      starts[bin] = started < left
      warm = min(kept, left)
      cold = min(started, left)
    }
    var spans: [IdlePlan.Span] = []
    var isWarm = true
    for bin in 0..<bins {
      let wasWarm = isWarm && bin > 0
      isWarm = isWarm ? stays[bin] : starts[bin]
      guard isWarm else { continue }
      let until = Duration.seconds(Double(ArrivalForecast.edges[bin + 1]))
      if wasWarm {
        spans[spans.count - 1].until = until
      } else {
        spans.append(IdlePlan.Span(from: .seconds(Double(ArrivalForecast.edges[bin])), until: until))
      }
    }
    return IdlePlan(spans: spans)
  }
}

/// A power with a whole exponent, by squaring.
private func power<Number: FloatingPoint>(_ base: Number, _ exponent: Int) -> Number {
  var (result, square, rest) = (Number(1), base, exponent)
  while rest > 0 {
    if rest & 1 == 1 { result *= square }
    square *= square
    rest >>= 1
  }
  return result
}
