import HearthCore

/// How the pool grows.
extension FunctionSchedule {
  /// Brings the pool to what the policy asks for, whatever just happened: a served queue, `min-workers`, the buffer.
  mutating func recover(now: HearthInstant) {
    if isRetired {
      retireWorkers(now: now)
    } else {
      serveQueue(now: now)
      fillFloor(now: now)
      refillBuffer(now: now)
      growForQueue(now: now)
      prewarm(now: now)
      stopIdle(now: now)
    }
    scheduleNextWake(now: now)
  }

  /// Starts what `min-workers` and open warm windows ask for.
  private mutating func fillFloor(now: HearthInstant) {
    while poolSize < policy.workersMin, startAllowed(now: now) { start(.minimum, now: now) }
    let warm = min(warmWorkers(now: now), policy.workersMax)
    while poolSize < warm, startAllowed(now: now) { start(.warmWindow, now: now) }
  }

  /// Starts workers for the queue: the first ones when none runs, and more when the queue would outlast a start, so
  /// many that it lasts no longer than one.
  ///
  /// How long a start and a request take is learned. While a start is under way no further one is decided, since it may
  /// be enough.
  mutating func growForQueue(now: HearthInstant) {
    guard let head = queue.first, !isRetired else { return }
    guard poolSize > 0 else { return activate(now: now) }
    hurry(now: now)
    guard startingCount == 0, poolSize < policy.workersMax, startAllowed(now: now) else { return }
    let patience = policy.upscaleStabilization
    guard head.returns > 0 || head.arrival.duration(to: now) >= patience else {
      return scheduleWake(head.arrival.advanced(by: patience))
    }
    let excess = queueDrainTime(now: now).seconds / expectedStart.seconds
    guard excess > 1 else { return scheduleWake(now.advanced(by: expectedStart)) }
    let requests = inFlightCount + queue.count
    let wanted = min(
      (requests + policy.concurrencyMax - 1) / policy.concurrencyMax,
      Int((Double(max(1, readyCount)) * min(excess, 1e6)).rounded(.up)))
    let ceiling = max(Int(Double(poolSize) * policy.upscaleFactorMax), poolSize + 1)
    let target = min(wanted, policy.workersMax, ceiling)
    let limit = target == wanted ? nil : target == ceiling ? "max-upscale-factor" : "max-workers"
    for _ in poolSize..<max(target, poolSize) { start(.queue(length: queue.count), limit: limit, now: now) }
    if startingCount == 0 { scheduleWake(now.advanced(by: expectedStart)) }
  }

  /// A request waits: what was asked for without one is urgent now.
  private mutating func hurry(now: HearthInstant) {
    for id in quietAsks.sorted() {
      guard case .asked(let since, _) = workers[id]?.state else { continue }
      transition(id, to: .asked(since: since, .activation), now: now)
      actions.append(.hurryWorker(id))
    }
  }

  /// From none to `activation-scale` workers.
  mutating func activate(now: HearthInstant) {
    if startAllowed(now: now) {
      for _ in 0..<min(policy.activationScale, policy.workersMax) { start(.activation, now: now) }
    } else if let retryAt = loadFailures.retryAt {
      scheduleWake(retryAt)
    }
  }

  /// Keeps `buffer-workers` idle ones above those in use, while any is in use.
  mutating func refillBuffer(now: HearthInstant) {
    guard policy.bufferWorkers > 0, !isRetired, !isAtRest else { return }
    let inUse = (inFlightCount + queue.count + policy.concurrencyMax - 1) / policy.concurrencyMax
    let wanted = min(inUse + policy.bufferWorkers, policy.workersMax)
    while poolSize < wanted, startAllowed(now: now) { start(.buffer, now: now) }
  }

  /// Starts a worker in time for a request that the idle times so far let expect.
  private mutating func prewarm(now: HearthInstant) {
    guard policy.keepAlive.learns, poolSize == 0, let rest = rest(now: now), startAllowed(now: now) else { return }
    if expectsRequest(rest) { start(.prewarm, now: now) }
  }

  /// Looks at the pool every `tick` while there is traffic, or had been until recently.
  mutating func lookAtTraffic(now: HearthInstant) {
    guard let due = nextTick, due <= now, !isRetired else { return }
    let pool = poolSize
    let outcome = scaler.look(at: pool, policy, mayPanic: queue.isEmpty || queueOutlastsStart(now: now), now: now)
    if outcome.target > pool, pool > 0 {
      let reason = StartReason.traffic(wanted: outcome.wanted, isPanic: scaler.isPanicking(now: now))
      while poolSize < outcome.target, startAllowed(now: now) { start(reason, limit: outcome.limit, now: now) }
    } else if outcome.target < pool {
      stopSurplus(to: outcome, now: now)
    }
    if poolSize == pool, outcome.wanted != pool, let knob = outcome.limit {
      note(.held(knob: knob), limit: nil, now: now)
    }
    // At rest nothing is left to see once the window is empty and the pool as small as the traffic makes it.
    let isOver = isAtRest && scaler.mean == 0 && poolSize <= max(1, policy.workersMin)
    nextTick = isOver ? nil : now.advanced(by: policy.tick)
  }

  /// How long the waiting requests would take with the workers there are.
  func queueDrainTime(now: HearthInstant) -> Duration {
    let oldest = workers.values.lazy.compactMap(\.inFlight.oldestBegan).min().map { $0.duration(to: now) } ?? .zero
    let service = max(serviceEstimate.value ?? .zero, oldest)
    let slots = max(1, readyCount * policy.concurrencyMax)
    return service * queue.count / slots
  }

  private func queueOutlastsStart(now: HearthInstant) -> Bool { queueDrainTime(now: now) > expectedStart }

  private var expectedStart: Duration { max(startEstimate.value ?? .zero, FunctionSchedule.startTimeFloor) }

  /// When a request that finds the queue full should come again: when what waits now is served.
  func retryAfter(now: HearthInstant) -> Duration {
    max(queueDrainTime(now: now), expectedWait(position: queue.count, now: now) ?? .zero)
  }

  func startAllowed(now: HearthInstant) -> Bool { loadFailures.allowsStart(now: now) }

  /// Decides on one more worker.
  ///
  /// - Parameter limit: the knob that kept it from being more.
  mutating func start(_ reason: StartReason, limit: String? = nil, now: HearthInstant) {
    note(.started(reason), limit: limit, now: now)
    let id = nextWorker()
    transition(id, to: .asked(since: now, reason), now: now)
    if reason.urgency != .demand { quietAsks.insert(id) }
    if reason == .initial { scheduleWake(now.advanced(by: roomPatience)) }
    actions.append(.startWorker(id, reason))
  }

  /// Keeps a decision for `hearth why`.
  mutating func note(_ outcome: ScalingDecision.Outcome, limit: String?, now: HearthInstant) {
    let observation = ScalingDecision.Observation(
      workers: poolSize, inFlight: inFlightCount, waiting: queue.count, mean: scaler.mean, panicMean: scaler.panicMean,
      isPanic: scaler.isPanicking(now: now), wanted: nextTick == nil ? nil : scaler.wanted)
    log.add(ScalingDecision(at: now, outcome: outcome, observation: observation, limit: limit, lastAt: now))
  }
}
