import DequeModule
import HearthCore

/// Requests and the slots they take.
extension FunctionSchedule {
  mutating func assign(_ waiting: Waiting, to worker: WorkerID, _ kind: StartKind, now: HearthInstant) {
    let count = workers[worker]!.take(Running(waiting: waiting, began: now))
    inFlightCount += 1
    if count >= policy.concurrencyMax { available.removeAll { $0 == worker } }
    usage.served(isHit: kind == .hot || kind == .warm)
    actions.append(.run(waiting.id, on: worker, kind))
  }

  /// Frees the slot an invocation took; nil when the worker does not hold it (any more). It began when the worker got
  /// it, or when the worker had finished the one before.
  mutating func release(
    _ id: InvocationID, from worker: WorkerID, finished: HearthInstant? = nil
  ) -> (running: Running, began: HearthInstant)? {
    guard let (running, previous, left) = workers[worker]?.give(id, finished: finished) else { return nil }
    inFlightCount -= 1
    if left >= policy.concurrencyMax { aheadCount -= 1 }
    let began = policy.concurrencyMax == 1 ? max(running.began, previous) : running.began
    if left == 0, workers[worker]?.state == .gone { transition(worker, to: nil, now: began) }
    return (running, began)
  }

  /// Puts an invocation back to where it stood, by its arrival.
  mutating func requeue(_ waiting: Waiting) {
    let index = queue.firstIndex { $0.arrival > waiting.arrival } ?? queue.endIndex
    queue.insert(waiting, at: index)
  }

  /// Gives a worker that has a free slot its next request, or lets it fall idle or end.
  mutating func settle(_ id: WorkerID, now: HearthInstant) {
    guard let worker = workers[id] else { return }
    switch worker.state {
    case .ready:
      if !available.contains(id), worker.inFlight.count < policy.concurrencyMax { available.append(id) }
      serveQueue(now: now)
      guard workers[id]?.inFlight.isEmpty == true else { return }
      workers[id]?.idleSince = now
      if poolSize > policy.workersMax { stop(id, .surplus, now: now) } else { scheduleIdleWake(id) }
    case .draining(_, let reason) where worker.inFlight.isEmpty:
      stop(id, reason, now: now)
    default: break
    }
  }

  /// Hands waiting requests to free slots.
  mutating func serveQueue(now: HearthInstant) {
    while let worker = available.last, let waiting = queue.popFirst() {
      assign(waiting, to: worker, kind(of: worker), now: now)
    }
    sendQueueAhead(now: now)
  }

  private func kind(of worker: WorkerID) -> StartKind {
    if workers[worker]?.hasServed == true { return .warm }
    return startMode == .fork ? .zygote : .cold
  }

  mutating func rejectQueue(_ rejection: Rejection) {
    for waiting in queue { actions.append(.reject(waiting.id, rejection)) }
    queue.removeAll()
  }

  /// Refuses what has waited for `cold-start-timeout`.
  mutating func expireQueue(now: HearthInstant) {
    let timeout = policy.coldStartTimeout
    while let head = queue.first, head.arrival.duration(to: now) >= timeout {
      queue.removeFirst()
      actions.append(.reject(head.id, .coldStartTimeout(timeout)))
    }
  }

  mutating func takeActions() -> [Action] {
    noteRest()
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }
}

/// Requests that are sent ahead of the one a worker has, where requests take less time than the way to the worker.
extension FunctionSchedule {
  mutating func observeService(_ duration: Duration) {
    serviceEstimate.observe(duration)
    guard pipelines, policy.concurrencyMax == 1, policy.queueLengthMax > 0 else {
      aheadDepth = 0
      return
    }
    let service = max(1, serviceEstimate.value?.nanoseconds ?? .max)
    aheadDepth = min(FunctionSchedule.aheadMax, Int(FunctionSchedule.aheadTime.nanoseconds / service))
  }

  /// Sends waiting requests ahead. One of another lane may be passed over, but not for long: then workers get no more
  /// ahead, and the first that becomes free takes it.
  private mutating func sendQueueAhead(now: HearthInstant) {
    var index = queue.startIndex
    while aheadDepth > 0, index < min(queue.endIndex, FunctionSchedule.aheadSearchMax) {
      let waiting = queue[index]
      guard waiting.isWhole else { return }
      if let worker = aboutToBeFree(for: waiting.lane, now: now) {
        queue.remove(at: index)
        sendAhead(waiting, to: worker, now: now)
      } else if waiting.arrival.duration(to: now) < FunctionSchedule.aheadPatience {
        index += 1
      } else {
        return
      }
    }
  }

  /// The ready worker with the fewest requests, all of this lane, that may get one more ahead and is not late.
  func aboutToBeFree(for lane: Int, now: HearthInstant) -> WorkerID? {
    guard aheadDepth > 0 else { return nil }
    var found: (id: WorkerID, count: Int)?
    for (id, worker) in workers where worker.state == .ready {
      let count = worker.inFlight.count
      guard count <= aheadDepth, !worker.isHeldUp, let current = worker.inFlight.first, current.waiting.isWhole,
        current.waiting.lane == lane, isBetter(count, id, than: found),
        !isLate(worker, now: now)
      else { continue }
      found = (id, count)
    }
    return found?.id
  }

  /// The fewest requests, and among equals the older worker: never the order of a table.
  private func isBetter(_ count: Int, _ id: WorkerID, than found: (id: WorkerID, count: Int)?) -> Bool {
    guard let found else { return true }
    return (count, id) < (found.count, found.id)
  }

  mutating func sendAhead(_ waiting: Waiting, to worker: WorkerID, now: HearthInstant) {
    workers[worker]!.inFlight.append(Running(waiting: waiting, began: now))
    inFlightCount += 1
    aheadCount += 1
    usage.served(isHit: true)
    actions.append(.sendAhead(waiting.id, to: worker))
    scheduleRecall(worker)
  }

  /// Takes back what waits behind requests that take unusually long. Which of a worker's requests it is at, only it and
  /// its connection know for sure, so all are asked for, and the one that it has begun stays.
  mutating func recallLate(now: HearthInstant) {
    guard pipelines else { return }
    for id in workers.keys.sorted() {
      guard let worker = workers[id], worker.inFlight.count > policy.concurrencyMax else { continue }
      guard worker.state == .ready || worker.state.isDraining else { continue }
      guard isLate(worker, now: now) else {
        scheduleRecall(id)
        continue
      }
      for invocation in workers[id]!.inFlight.markRecalled() { actions.append(.recall(invocation, from: id)) }
    }
  }

  private func currentBegan(_ worker: Worker) -> HearthInstant {
    max(worker.inFlight.first?.began ?? worker.lastFinished, worker.lastFinished)
  }

  private func isLate(_ worker: Worker, now: HearthInstant) -> Bool {
    currentBegan(worker).duration(to: now) >= FunctionSchedule.aheadPatience
  }

  private mutating func scheduleRecall(_ id: WorkerID) {
    guard let worker = workers[id] else { return }
    scheduleWake(currentBegan(worker).advanced(by: FunctionSchedule.aheadPatience))
  }
}
