import DequeModule
import HearthCore

/// The facts a schedule takes. Each returns the actions that follow from it.
extension FunctionSchedule {
  /// - Parameters:
  ///   - isWhole: whether all of its body is there.
  ///   - wasAnnounced: whether `invocationAnnounced` was said of it.
  ///   - lane: which connection to a worker it would take. Only requests of one lane are sent behind one another, since
  ///     only then is it known which of them a worker that dies had begun.
  ///   - cache: how far its node's cache has come.
  public mutating func invocationArrived(
    _ id: InvocationID, isWhole: Bool = true, lane: Int = 0, wasAnnounced: Bool = false,
    cache: CacheClock = CacheClock(), now: HearthInstant
  ) -> [Action] {
    elapse(to: now)
    if wasAnnounced { announcedCount -= 1 }
    if isRetired { return [.reject(id, .retired)] }
    usage.requested(cache, now: now)
    endRest(now: now)
    let waiting = Waiting(id: id, arrival: now, isWhole: isWhole, lane: lane)
    if queue.isEmpty {
      if let worker = available.last {
        assign(waiting, to: worker, .hot, now: now)
        refillBuffer(now: now)
        return takeActions()
      }
      if isWhole, let worker = aboutToBeFree(for: lane, now: now) {
        sendAhead(waiting, to: worker, now: now)
        return takeActions()
      }
    }
    // A remembered failure gives way to one more attempt once it has been remembered for long enough.
    if loadFailures.isRemembered, poolSize == 0, !loadFailures.allowsStart(now: now) {
      actions.append(.reject(id, loadFailures.rejection(now: now)))
      return takeActions()
    }
    if queue.count >= max(policy.queueLengthMax, 0), !(queue.isEmpty && policy.queueLengthMax == 0 && poolSize == 0) {
      actions.append(.reject(id, .queueFull(length: queue.count, retryAfter: retryAfter(now: now))))
      return takeActions()
    }
    queue.append(waiting)
    growForQueue(now: now)
    scheduleWake(now.advanced(by: policy.coldStartTimeout))
    return takeActions()
  }

  /// A request whose body is still on its way: it arrives later, `wasAnnounced`, or `announcementWithdrawn` is said. A
  /// function without a worker starts one meanwhile.
  public mutating func invocationAnnounced(now: HearthInstant) -> [Action] {
    elapse(to: now)
    announcedCount += 1
    guard !isRetired else { return [] }
    endRest(now: now)
    if poolSize == 0, startAllowed(now: now) { activate(now: now) }
    return takeActions()
  }

  /// The client of an announced request left before its body was there.
  public mutating func announcementWithdrawn(now: HearthInstant) -> [Action] {
    elapse(to: now)
    announcedCount -= 1
    if isAtRest, !isRetired { stopIdle(now: now) }
    return takeActions()
  }

  /// A worker took an invocation and is done with it: answered, failed, or cancelled and proven free.
  ///
  /// - Parameter isWorkerLost: whether the worker is beyond use; the shell ends it.
  public mutating func invocationFinished(
    _ id: InvocationID, on worker: WorkerID, isWorkerLost: Bool = false, now: HearthInstant
  ) -> [Action] {
    elapse(to: now)
    guard let released = release(id, from: worker, finished: now) else { return [] }
    observeService(released.began.duration(to: now))
    if loadFailures.count > 0 { loadFailures.clear() }
    if isWorkerLost {
      markLost(worker, now: now)
      recover(now: now)
    } else {
      settle(worker, now: now)
    }
    return takeActions()
  }

  /// The worker gave an invocation back that it had not begun: one that was sent ahead, or one that its author's code
  /// may get twice. It goes back to where it stood in the queue.
  public mutating func invocationWithdrawn(
    _ id: InvocationID, from worker: WorkerID, isWorkerLost: Bool = false, now: HearthInstant
  ) -> [Action] {
    elapse(to: now)
    let waiting = release(id, from: worker)?.running.waiting ?? Waiting(id: id, arrival: now, isWhole: true, lane: 0)
    if isWorkerLost { markLost(worker, now: now) }
    if isRetired { actions.append(.reject(id, .retired)) } else { requeue(waiting) }
    if workers[worker] != nil { settle(worker, now: now) }
    recover(now: now)
    return takeActions()
  }

  /// No byte of the invocation reached the worker: it goes back to the head of the queue. The worker, which takes no
  /// bytes, gets nothing more; the shell ends it.
  public mutating func invocationReturned(_ id: InvocationID, from worker: WorkerID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    var waiting = release(id, from: worker)?.running.waiting ?? Waiting(id: id, arrival: now, isWhole: true, lane: 0)
    waiting.returns += 1
    markLost(worker, now: now)
    if isRetired {
      actions.append(.reject(id, .retired))
    } else if waiting.returns > FunctionSchedule.returnsMax {
      let reason = "its workers took no request, \(waiting.returns) times in a row"
      actions.append(.reject(id, .loadFailed(reason: reason, retryAfter: FunctionSchedule.loadBackoff)))
    } else {
      requeue(waiting)
    }
    recover(now: now)
    return takeActions()
  }

  /// The shell ends this worker, unless it has ended already.
  private mutating func markLost(_ id: WorkerID, now: HearthInstant) {
    guard let worker = workers[id], worker.state != .gone else { return }
    transition(id, to: .stopping, now: now)
  }

  /// The client of a waiting invocation left. Returns nothing to do for the invocation itself.
  public mutating func invocationAbandoned(_ id: InvocationID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    if let index = queue.firstIndex(where: { $0.id == id }) { queue.remove(at: index) }
    if isAtRest { stopIdle(now: now) }
    return takeActions()
  }

  /// The worker's current request keeps it from taking others ahead. Ends with that request.
  public mutating func workerHeldUp(_ id: WorkerID) {
    if workers[id]?.inFlight.isEmpty == false { workers[id]?.isHeldUp = true }
  }

  // Workers.

  public mutating func workerProgressed(_ id: WorkerID, now: HearthInstant) {
    if case .starting(let since, _) = workers[id]?.state {
      workers[id]?.state = .starting(since: since, progress: now)
    }
  }

  /// Its node has let a worker start.
  public mutating func workerStartBegan(_ id: WorkerID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    guard case .asked = workers[id]?.state else { return [] }
    transition(id, to: .starting(since: now, progress: now), now: now)
    scheduleWake(now.advanced(by: policy.loadStallTimeout))
    return takeActions()
  }

  public mutating func workerBecameReady(_ id: WorkerID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    guard let began = workers[id]?.state.startBegan else { return [] }
    startEstimate.observe(began.duration(to: now))
    usage.loaded(in: began.duration(to: now))
    hasRunOut = false
    transition(id, to: .ready, now: now)
    workers[id]?.readyAt = now
    workers[id]?.idleSince = now
    settle(id, now: now)
    recover(now: now)
    return takeActions()
  }

  /// A worker ended before it became ready, for the reason given. One that ran out of memory is tried once more: its
  /// node gives the next one more.
  public mutating func workerFailedToStart(
    _ id: WorkerID, _ failure: StartFailure = .failed, reason: String, now: HearthInstant
  ) -> [Action] {
    elapse(to: now)
    guard workers[id]?.state.startBegan != nil else { return workerExited(id, now: now) }
    transition(id, to: nil, now: now)
    if failure == .ranOut, !hasRunOut {
      hasRunOut = true
    } else {
      hasRunOut = false
      loadFailures.record(failure, reason, now: now)
      if poolSize == 0, loadFailures.isRemembered || failure != .failed {
        rejectQueue(loadFailures.rejection(now: now))
      }
    }
    recover(now: now)
    return takeActions()
  }

  /// A worker's process is gone. What it had in flight is reported by `invocationFinished` or `invocationReturned`,
  /// before or after this.
  public mutating func workerExited(_ id: WorkerID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    guard let worker = workers[id], worker.state != .gone else { return [] }
    transition(id, to: worker.inFlight.isEmpty ? nil : .gone, now: now)
    // A worker that ends unasked soon after it was ready, without a request, is as bad as one that does not load.
    let livedShortly = worker.idleSince.duration(to: now) < FunctionSchedule.shortLife
    if worker.state == .ready, !worker.hasServed, livedShortly {
      loadFailures.record(.failed, "its worker ended as soon as it was ready", now: now)
    }
    recover(now: now)
    return takeActions()
  }

  public mutating func policyChanged(_ policy: FunctionPolicy, now: HearthInstant) -> [Action] {
    elapse(to: now)
    self.policy = policy
    warm = nil
    if let due = nextTick { nextTick = min(due, now.advanced(by: policy.tick)) }
    idleTimes.forgetPlan()
    if isAtRest { idleTimes.plan(policy, startTime: startEstimate.value, now: now) }
    for id in available where workers[id]?.inFlight.isEmpty == true && poolSize > policy.workersMax {
      stop(id, .surplus, now: now)
    }
    recover(now: now)
    return takeActions()
  }

  /// How long the function was without requests before this schedule was made, the newest last.
  public mutating func restsObserved(_ rests: [Duration]) {
    for rest in rests { idleTimes.observe(rest) }
  }

  /// What the wall clock shows, for warm windows: Unix time less `now`. The shell says it with each wake-up.
  public mutating func wallClockRead(offset: Duration) {
    // 10 ms: two clocks are never read at one instant.
    if let known = wallOffset, abs((known - offset).nanoseconds) < 10_000_000 { return }
    wallOffset = offset
    warm = nil
  }

  /// The function is to be made ready although nobody has called yet: `min-workers`, and at least `workers`.
  public mutating func activated(workers: Int, now: HearthInstant) -> [Action] {
    elapse(to: now)
    while poolSize < min(workers, policy.workersMax), startAllowed(now: now) { start(.initial, now: now) }
    recover(now: now)
    return takeActions()
  }

  /// Another version has taken over, or the function is gone. What waits is refused with `retired`, which tells the
  /// shell to offer it to the next version; what runs may finish within `drain-timeout`.
  public mutating func retired(now: HearthInstant) -> [Action] {
    elapse(to: now)
    isRetired = true
    nextTick = nil
    rejectQueue(.retired)
    retireWorkers(now: now)
    return takeActions()
  }

  /// Time has passed: what is due is done, and the next wake-up asked for.
  public mutating func timeReached(now: HearthInstant) -> [Action] {
    elapse(to: now)
    nextWake = nil
    expireQueue(now: now)
    recallLate(now: now)
    killStalled(now: now)
    giveUpInitial(now: now)
    killUndrained(now: now)
    lookAtTraffic(now: now)
    recover(now: now)
    return takeActions()
  }
}
