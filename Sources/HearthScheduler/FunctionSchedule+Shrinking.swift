import HearthCore

/// How the pool shrinks.
extension FunctionSchedule {
  mutating func stop(_ id: WorkerID, _ reason: StopReason, limit: String? = nil, now: HearthInstant) {
    // One that had to finish first was noted when that was decided.
    if workers[id]?.state.isDraining != true { note(.stopped(reason), limit: limit, now: now) }
    transition(id, to: .stopping, now: now)
    actions.append(.stopWorker(id, reason))
  }

  private mutating func kill(_ id: WorkerID, _ reason: StopReason, now: HearthInstant) {
    note(.stopped(reason), limit: nil, now: now)
    transition(id, to: .stopping, now: now)
    actions.append(.killWorker(id, reason))
  }

  /// How many workers the policy keeps whatever the traffic.
  mutating func floor(now: HearthInstant) -> Int {
    min(max(policy.workersMin, warmWorkers(now: now)), policy.workersMax)
  }

  /// Ends idle workers past their keep-alive, never below the floor or the buffer, and none in a panic.
  mutating func stopIdle(now: HearthInstant) {
    withdrawUnneeded(now: now)
    guard !scaler.isPanicking(now: now) else { return }
    let floor = floor(now: now)
    let buffer = buffer(now: now)
    var spare = idleCount - buffer
    var surplus = poolSize - floor
    guard spare > 0, surplus > 0 else { return }
    // Between requests, one worker is kept or not as the idle times say; the others are surplus.
    let rest = policy.keepAlive.learns ? rest(now: now) : nil
    let expects = rest.map(expectsRequest)
    if expects == true { surplus = min(surplus, poolSize - 1) }
    for id in available {
      guard spare > 0, surplus > 0 else { return }
      guard let worker = workers[id], worker.inFlight.isEmpty else { continue }
      let idle = worker.idleSince.duration(to: now)
      if expects == false {
        stop(id, .unexpected, now: now)
      } else if let keepAlive = surplusKeepAlive, idle >= keepAlive {
        stop(id, .idle(idle), now: now)
      } else {
        continue
      }
      spare -= 1
      surplus -= 1
    }
  }

  private var idleCount: Int { available.count { workers[$0]?.inFlight.isEmpty == true } }

  /// Ends idle workers that the traffic no longer asks for. The last one goes by `keep-alive` only.
  mutating func stopSurplus(to outcome: Scaler.Outcome, now: HearthInstant) {
    let target = max(outcome.target + buffer(now: now), floor(now: now), 1)
    for id in available where poolSize > target && workers[id]?.inFlight.isEmpty == true {
      stop(id, .traffic(wanted: outcome.wanted), limit: outcome.limit, now: now)
    }
  }

  /// Takes back what its node has not let start yet and nobody waits for any more.
  private mutating func withdrawUnneeded(now: HearthInstant) {
    guard isAtRest, startingCount > 0 else { return }
    let expects = rest(now: now).map(expectsRequest) ?? false
    for id in workers.keys.sorted() where poolSize > floor(now: now) {
      guard case .asked(_, let reason) = workers[id]?.state else { continue }
      switch reason {
      case .activation, .queue, .buffer, .traffic: kill(id, .notNeeded, now: now)
      case .prewarm where !expects: kill(id, .notNeeded, now: now)
      case .prewarm, .minimum, .warmWindow, .initial: break
      }
    }
  }

  /// Ends workers whose load has shown no progress for too long; the shell reports their end as a failed start.
  mutating func killStalled(now: HearthInstant) {
    for id in workers.keys.sorted() {
      guard case .starting(_, let progress) = workers[id]?.state, progress.duration(to: now) >= policy.loadStallTimeout
      else { continue }
      note(.stopped(.stalled), limit: nil, now: now)
      actions.append(.killWorker(id, .stalled))
    }
  }

  /// Gives up a deploy's workers that found no room in time.
  mutating func giveUpInitial(now: HearthInstant) {
    for id in workers.keys.sorted() {
      guard case .asked(let since, .initial) = workers[id]?.state,
        since.duration(to: now) >= roomPatience
      else { continue }
      kill(id, .noRoom, now: now)
    }
  }

  /// Stops what is idle, lets what is in flight finish until the drain deadline, then ends it.
  mutating func retireWorkers(now: HearthInstant) {
    for id in workers.keys.sorted() {
      guard let worker = workers[id] else { continue }
      switch worker.state {
      case .ready where worker.inFlight.isEmpty: stop(id, .retired, now: now)
      case .ready: drain(id, .retired, now: now)
      case .asked, .starting: kill(id, .retired, now: now)
      case .draining, .stopping, .gone: break
      }
    }
  }

  /// Gives a worker nothing more; it stops when it has finished what it has, or at the drain deadline.
  mutating func drain(_ id: WorkerID, _ reason: StopReason, now: HearthInstant) {
    note(.stopped(reason), limit: nil, now: now)
    let deadline = now.advanced(by: policy.drainTimeout)
    transition(id, to: .draining(deadline: deadline, reason), now: now)
    scheduleWake(deadline)
  }

  mutating func killUndrained(now: HearthInstant) {
    for id in workers.keys.sorted() {
      if case .draining(let deadline, _) = workers[id]?.state, deadline <= now { kill(id, .drainTimeout, now: now) }
    }
  }
}
