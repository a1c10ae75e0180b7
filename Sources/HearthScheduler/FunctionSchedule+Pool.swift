import HearthCore

/// How the pool grows and shrinks.
extension FunctionSchedule {
  /// Brings the pool to what the policy asks for, whatever just happened: a served queue, `min-workers`, the buffer.
  mutating func recover(now: HearthInstant) {
    if isRetired {
      retireWorkers(now: now)
    } else {
      serveQueue(now: now)
      while poolSize < policy.workersMin, startAllowed(now: now) { start(.minimum, now: now) }
      refillBuffer(now: now)
      growForQueue(now: now)
      stopIdle(now: now)
    }
    scheduleNextWake(now: now)
  }

  /// Starts workers for the queue: one when none runs, and more while the queue would outlast another start.
  ///
  /// A start pays off only if the queue lasts longer than it, so both are compared as learned; while a start is under
  /// way no further one is decided, since it may be enough.
  mutating func growForQueue(now: HearthInstant) {
    guard let head = queue.first, !isRetired else { return }
    guard poolSize > 0 else {
      if startAllowed(now: now) {
        start(.activation, now: now)
      } else if let retryAt = loadFailures.retryAt {
        scheduleWake(retryAt)
      }
      return
    }
    guard startingCount == 0, poolSize < policy.workersMax, startAllowed(now: now) else { return }
    let startTime = max(startEstimate.value ?? .zero, FunctionSchedule.startTimeFloor)
    guard head.returns > 0 || head.arrival.duration(to: now) >= startTime else {
      return scheduleWake(head.arrival.advanced(by: startTime))
    }
    guard queueDrainTime(now: now) > startTime else { return scheduleWake(now.advanced(by: startTime)) }
    let demand = inFlightCount + queue.count
    let wanted = (demand + policy.concurrencyMax - 1) / policy.concurrencyMax
    let target = min(wanted, policy.workersMax, poolSize * policy.upscaleFactorMax)
    for _ in poolSize..<max(target, poolSize) { start(.queue(length: queue.count), now: now) }
  }

  /// Keeps `buffer-workers` idle ones above those in use, while any is in use.
  mutating func refillBuffer(now: HearthInstant) {
    guard policy.bufferWorkers > 0, !isRetired, inFlightCount > 0 || !queue.isEmpty else { return }
    let inUse = (inFlightCount + queue.count + policy.concurrencyMax - 1) / policy.concurrencyMax
    let wanted = min(inUse + policy.bufferWorkers, policy.workersMax)
    while poolSize < wanted, startAllowed(now: now) { start(.buffer, now: now) }
  }

  /// How long the waiting requests would take with the workers there are.
  func queueDrainTime(now: HearthInstant) -> Duration {
    let oldest = workers.values.lazy.compactMap(\.inFlight.oldestBegan).min().map { $0.duration(to: now) } ?? .zero
    let service = max(serviceEstimate.value ?? .zero, oldest)
    let slots = max(1, readyCount * policy.concurrencyMax)
    return service * queue.count / slots
  }

  /// When a request that finds the queue full should come again: when what waits now is served.
  func retryAfter(now: HearthInstant) -> Duration {
    max(queueDrainTime(now: now), expectedWait(position: queue.count, now: now) ?? .zero)
  }

  func startAllowed(now: HearthInstant) -> Bool { loadFailures.allowsStart(now: now) }

  mutating func start(_ reason: StartReason, now: HearthInstant) {
    let id = WorkerID(nextWorker)
    nextWorker += 1
    transition(id, to: .starting(since: now, progress: now), now: now)
    actions.append(.startWorker(id, reason))
    scheduleWake(now.advanced(by: policy.loadStallTimeout))
  }

  mutating func stop(_ id: WorkerID, _ reason: StopReason, now: HearthInstant) {
    transition(id, to: .stopping, now: now)
    actions.append(.stopWorker(id, reason))
  }

  /// Ends idle workers past their keep-alive, never below `min-workers` or the buffer.
  mutating func stopIdle(now: HearthInstant) {
    let keepAlive: Duration
    switch policy.keepAlive {
    case .forever: return
    case .fixed(let duration): keepAlive = duration
    }
    let buffer = inFlightCount > 0 ? policy.bufferWorkers : 0
    var spare = available.count { workers[$0]?.inFlight.isEmpty == true } - buffer
    var surplus = poolSize - policy.workersMin
    for id in available {
      guard spare > 0, surplus > 0 else { return }
      guard let worker = workers[id], worker.inFlight.isEmpty else { continue }
      let idle = worker.idleSince.duration(to: now)
      guard idle >= keepAlive else { continue }
      stop(id, .idle(idle), now: now)
      spare -= 1
      surplus -= 1
    }
  }

  /// Ends workers whose load has shown no progress for too long; the shell reports their end as a failed start.
  mutating func killStalled(now: HearthInstant) {
    for (id, worker) in workers {
      guard case .starting(_, let progress) = worker.state, progress.duration(to: now) >= policy.loadStallTimeout
      else { continue }
      actions.append(.killWorker(id, .stalled))
    }
  }

  /// Stops what is idle, lets what is in flight finish until the drain deadline, then ends it.
  mutating func retireWorkers(now: HearthInstant) {
    for id in workers.keys.sorted() {
      guard let worker = workers[id] else { continue }
      switch worker.state {
      case .ready where worker.inFlight.isEmpty:
        stop(id, .retired, now: now)
      case .ready:
        let deadline = now.advanced(by: policy.drainTimeout)
        transition(id, to: .draining(deadline: deadline), now: now)
        scheduleWake(deadline)
      case .draining(let deadline) where deadline <= now:
        transition(id, to: .stopping, now: now)
        actions.append(.killWorker(id, .drainTimeout))
      case .starting:
        transition(id, to: .stopping, now: now)
        actions.append(.killWorker(id, .retired))
      default: break
      }
    }
  }
}
