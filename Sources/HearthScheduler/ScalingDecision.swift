import DequeModule
import HearthCore

/// One decision about a function's pool, with what was seen when it was taken: what `hearth why` tells.
public struct ScalingDecision: Sendable {
  public enum Outcome: Sendable, Hashable {
    case started(FunctionSchedule.StartReason)
    case stopped(FunctionSchedule.StopReason)
    /// The traffic asked for another number of workers, and a knob kept the pool as it is.
    case held(knob: String)
  }

  /// What the function looked like.
  public struct Observation: Sendable, Hashable {
    /// Workers starting and ready, before the decision.
    public var workers: Int
    public var inFlight: Int
    public var waiting: Int
    /// The means of the windows at the last tick.
    public var mean: Double
    public var panicMean: Double
    public var isPanic: Bool
    /// Workers that the windows ask for; nil before the first tick.
    public var wanted: Int?
  }

  public let at: HearthInstant
  public let outcome: Outcome
  public let observation: Observation
  /// Which knob kept a growth or cut below what was wanted.
  public let limit: String?
  /// How many workers were started or stopped, or how often the same was decided in a row.
  public internal(set) var count = 1
  public internal(set) var lastAt: HearthInstant
}

/// The last decisions, oldest first.
struct DecisionLog: Sendable {
  /// 100: an hour of a busy function's, some 20 KB.
  private static let entriesMax = 100

  private(set) var entries: Deque<ScalingDecision> = []

  /// Adds a decision, or counts it with the last one if it is the same again.
  mutating func add(_ decision: ScalingDecision) {
    if let last = entries.last, last.isRepeated(by: decision) {
      entries[entries.count - 1].count += 1
      entries[entries.count - 1].lastAt = decision.at
      return
    }
    if entries.count == DecisionLog.entriesMax { entries.removeFirst() }
    entries.append(decision)
  }
}

extension ScalingDecision {
  fileprivate func isRepeated(by next: ScalingDecision) -> Bool {
    switch (outcome, next.outcome) {
    case (.held(let knob), .held(let nextKnob)):
      knob == nextKnob && observation.workers == next.observation.workers
    // Several at one instant are one decision.
    case (.started(let reason), .started(let nextReason)): at == next.at && reason == nextReason
    case (.stopped(let reason), .stopped(let nextReason)): at == next.at && reason.isSameKind(as: nextReason)
    default: false
    }
  }
}
