import HearthCore

/// What follows from the passing of time: rest, idle times, wake-ups.
extension FunctionSchedule {
  /// Brings the traffic's integral up to now. Every fact begins with it: between facts nothing changes.
  mutating func elapse(to now: HearthInstant) {
    guard now > time else { return }
    scaler.meter.add(demand(now: time), from: time, to: now)
    time = now
  }

  /// How many slots of workers the traffic needs: one for each request that has one, and one for each that waits, for
  /// as long as it would have taken with a worker of its own.
  ///
  /// So this is what would be in flight if there were workers enough. A backlog, counted until it is served, would ask
  /// for as many workers as it is long. Before anything is known of how long requests take, those that wait for a
  /// worker that is starting count up to its slots.
  func demand(now: HearthInstant) -> Double {
    let running = inFlightCount - aheadCount
    guard !queue.isEmpty else { return Double(running) }
    guard let service = serviceEstimate.value else {
      let slots = startingCount > 0 ? startingCount * policy.concurrencyMax : queue.count
      return Double(running + min(queue.count, slots))
    }
    return Double(running + queue.count - firstWaiting(after: now.advanced(by: .zero - service)))
  }

  /// How many of the queue came before this instant: it is in the order of arrival.
  private func firstWaiting(after instant: HearthInstant) -> Int {
    var (low, high) = (0, queue.count)
    while low < high {
      let middle = (low + high) / 2
      if queue[middle].arrival < instant { low = middle + 1 } else { high = middle }
    }
    return low
  }

  var isAtRest: Bool { inFlightCount == 0 && queue.isEmpty && announcedCount == 0 }

  /// A request comes: a rest ends, and its length is learned.
  mutating func endRest(now: HearthInstant) {
    if let began = restBegan {
      idleTimes.observe(began.duration(to: now))
      restBegan = nil
    }
    guard nextTick == nil else { return }
    scaler.restart(pool: poolSize, policy, now: now)
    nextTick = now.advanced(by: policy.tick)
    scheduleWake(nextTick!)
  }

  /// After every fact: notices that there is no request any more.
  mutating func noteRest() {
    guard isAtRest else {
      restBegan = nil
      return
    }
    guard restBegan == nil, !isRetired else { return }
    restBegan = time
    if policy.keepAlive.learns { idleTimes.plan(policy, startTime: startEstimate.value, now: time) }
    scheduleRestWake(now: time)
  }

  /// How many idle workers the buffer keeps: as long as the function has had requests within its keep-alive, so that
  /// the moments between two do not end it.
  func buffer(now: HearthInstant) -> Int {
    guard let rest = rest(now: now), let keepAlive = surplusKeepAlive else { return policy.bufferWorkers }
    return rest < keepAlive ? policy.bufferWorkers : 0
  }

  /// Whether a worker is to be there at this point of a rest, or has to start now to be there in time.
  func expectsRequest(_ rest: Duration) -> Bool {
    idleTimes.current.keeps(at: rest) || idleTimes.current.keeps(at: rest + (startEstimate.value ?? .zero))
  }

  /// How long the function has had no request; nil while it has one.
  func rest(now: HearthInstant) -> Duration? { restBegan.map { $0.duration(to: now) } }

  // Wake-ups: asked for when an instant lies before the one already asked for.

  mutating func scheduleWake(_ instant: HearthInstant) {
    if let nextWake, nextWake <= instant { return }
    nextWake = instant
    actions.append(.wake(instant))
  }

  /// How long a surplus worker is kept; nil: always.
  var surplusKeepAlive: Duration? {
    switch policy.keepAlive {
    case .fixed(let duration): duration
    case .adaptive, .cost, .learned: policy.coldStartCost
    case .forever: nil
    }
  }

  mutating func scheduleIdleWake(_ id: WorkerID) {
    guard let keepAlive = surplusKeepAlive, let worker = workers[id], worker.inFlight.isEmpty,
      poolSize > policy.workersMin
    else { return }
    scheduleWake(worker.idleSince.advanced(by: keepAlive))
  }

  /// When this rest has lasted long enough for something: for the buffer to end, or for the plan to say something else
  /// than now, a worker less, or one more, in time for its start.
  mutating func scheduleRestWake(now: HearthInstant) {
    guard let began = restBegan else { return }
    if policy.bufferWorkers > 0, poolSize > 0, let end = surplusKeepAlive.map(began.advanced), end > now {
      scheduleWake(end)
    }
    guard policy.keepAlive.learns else { return }
    let rest = began.duration(to: now)
    if poolSize > 0, let end = idleTimes.current.end(after: rest) { scheduleWake(began.advanced(by: end)) }
    let lead = startEstimate.value ?? .zero
    if let beginning = idleTimes.current.beginning(after: rest + lead) {
      scheduleWake(began.advanced(by: beginning - lead))
    }
  }

  /// Asks for the earliest instant at which something may be due.
  mutating func scheduleNextWake(now: HearthInstant) {
    if let head = queue.first { scheduleWake(head.arrival.advanced(by: policy.coldStartTimeout)) }
    // In the order of their numbers: which wake-ups are asked for must not depend on the order of a table.
    for id in workers.keys.sorted() {
      guard let worker = workers[id] else { continue }
      switch worker.state {
      case .starting(_, let progress): scheduleWake(max(progress.advanced(by: policy.loadStallTimeout), soon(now)))
      case .draining(let deadline, _): scheduleWake(max(deadline, soon(now)))
      case .ready:
        // A worker past its keep-alive is kept by min-workers or the buffer: what frees it wakes the schedule.
        if let keepAlive = surplusKeepAlive, worker.idleSince.advanced(by: keepAlive) > now { scheduleIdleWake(id) }
      case .asked(let since, .initial): scheduleWake(max(since.advanced(by: roomPatience), soon(now)))
      case .asked, .stopping, .gone: break
      }
    }
    if let nextTick { scheduleWake(nextTick) }
    if let until = scaler.panicUntil, until > now, poolSize > 0 { scheduleWake(until) }
    if let warm, !policy.warmWindows.isEmpty, !isRetired { scheduleWake(max(warm.until, soon(now))) }
    scheduleRestWake(now: now)
    let wantsStart = !queue.isEmpty && poolSize == 0 || poolSize < max(policy.workersMin, warm?.workers ?? 0)
    if let retryAt = loadFailures.retryAt, wantsStart, retryAt > now { scheduleWake(retryAt) }
  }

  /// How long a deploy waits for room: two minutes, or less if requests wait for less.
  public var roomPatience: Duration { min(policy.coldStartTimeout, .seconds(120)) }

  /// A killed worker's end is reported by the shell; look again in a while in case it is not.
  private func soon(_ now: HearthInstant) -> HearthInstant { now.advanced(by: .seconds(1)) }

  // Warm windows.

  /// 60 s: how soon a step of the wall clock is noticed.
  private static let wallClockPatience = Duration.seconds(60)

  /// Workers that open warm windows ask for.
  mutating func warmWorkers(now: HearthInstant) -> Int {
    guard !policy.warmWindows.isEmpty, let time = unixTime(now) else { return 0 }
    if let warm, now < warm.until { return warm.workers }
    let states = policy.warmWindows.map { ($0.workers, $0.state(at: time)) }
    let workers = states.lazy.filter(\.1.isOpen).map(\.0).max() ?? 0
    let change = states.compactMap(\.1.until).min().map { Duration.seconds($0 - time) } ?? .seconds(3_600)
    warm = (workers, now.advanced(by: min(max(change, .seconds(1)), FunctionSchedule.wallClockPatience)))
    return workers
  }

  private func unixTime(_ now: HearthInstant) -> Int64? {
    wallOffset.map { CivilDate.floorDivide((.nanoseconds(now.nanoseconds) + $0).nanoseconds, 1_000_000_000) }
  }
}
