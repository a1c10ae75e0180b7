import HearthCore

extension ScalingDecision {
  /// What was done: `started 2 workers`.
  public var action: String {
    let workers = count == 1 ? "1 worker" : "\(count) workers"
    return switch outcome {
    case .started: "started \(workers)"
    case .stopped(.yielded), .stopped(.drainTimeout), .stopped(.stalled): "ended \(workers)"
    case .stopped(.notNeeded), .stopped(.noRoom): "gave up the start of \(workers)"
    case .stopped: "stopped \(workers)"
    case .held: "kept \(observation.workers == 1 ? "1 worker" : "\(observation.workers) workers")"
    }
  }

  /// Why, with the numbers that led to it, in plain words.
  ///
  /// - Parameter policy: the policy now, for the values of its knobs.
  public func explanation(_ policy: FunctionPolicy) -> String {
    let reason =
      switch outcome {
      case .started(let reason): reason.explanation(observation, policy)
      case .stopped(let reason): reason.explanation(observation, policy)
      case .held(let knob): "\(traffic(policy)); \(knob) (\(value(knob, policy))) keeps the pool as it is"
      }
    let limited = limit.map { ", \($0) (\(value($0, policy))) allowed no more" } ?? ""
    return "\(reason)\(limited)"
  }

  /// The state that was seen, in a few words.
  public var seen: String {
    "\(observation.workers) workers, \(observation.inFlight) in flight, \(observation.waiting) waiting"
      + (observation.isPanic ? ", panic" : "")
  }

  private func traffic(_ policy: FunctionPolicy) -> String { observation.traffic(policy) }

  private func value(_ knob: String, _ policy: FunctionPolicy) -> String { PolicyKnob.named(knob)?.read(policy) ?? "" }
}

extension ScalingDecision.Observation {
  /// `3.4 requests in flight over 1m at 2 a worker ask for 2 workers`.
  fileprivate func traffic(_ policy: FunctionPolicy) -> String {
    let (number, window) = isPanic && panicMean > mean ? (panicMean, policy.panicWindow) : (mean, policy.window)
    let wanted = wanted ?? 0
    return
      "\(tenths(number)) requests in flight over \(window.text) at \(tenths(policy.inFlightTarget)) a worker ask for "
      + (wanted == 1 ? "1 worker" : "\(wanted) workers")
  }

  private func tenths(_ number: Double) -> String {
    let value = Int64((number * 10).rounded())
    return value % 10 == 0 ? "\(value / 10)" : "\(value / 10).\(value % 10)"
  }
}

extension FunctionSchedule.StartReason {
  fileprivate func explanation(_ seen: ScalingDecision.Observation, _ policy: FunctionPolicy) -> String {
    switch self {
    case .activation: "a request came and no worker ran"
    case .queue(let length): "\(length) requests wait, longer than a start takes"
    case .initial: "a version was deployed"
    case .minimum: "min-workers is \(policy.workersMin)"
    case .buffer: "buffer-workers (\(policy.bufferWorkers)) asks for idle ones beside those in use"
    case .traffic: seen.traffic(policy)
    case .warmWindow: "a warm window is open"
    case .prewarm: "a request is expected, as the idle times so far tell"
    }
  }
}

extension FunctionSchedule.StopReason {
  fileprivate func explanation(_ seen: ScalingDecision.Observation, _ policy: FunctionPolicy) -> String {
    switch self {
    case .idle(let duration): "idle for \(Duration.seconds(Int(duration.seconds)).text), keep-alive is over"
    case .unexpected: "no request is expected soon, as the idle times so far tell"
    case .traffic: seen.traffic(policy)
    case .notNeeded: "nobody waits for it any more"
    case .noRoom: "its node had no room for it in time"
    case .reclaimed: "idle, and another function needs its memory"
    case .yielded: "another function has waited too long for memory"
    case .surplus: "max-workers is \(policy.workersMax)"
    case .retired: "its version is served no more"
    case .drainTimeout: "it did not finish within drain-timeout (\(policy.drainTimeout.text))"
    case .stalled: "its load made no progress for \(policy.loadStallTimeout.text)"
    }
  }
}
