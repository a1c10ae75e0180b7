import HearthCore

/// How workers make room for others on their node.
extension FunctionSchedule {
  /// The idle workers that others may take the place of.
  public struct Reclaimable: Sendable {
    public var candidates: [Eviction.Candidate] = []
    /// When the next one may be stopped that may not yet; nil when there is none.
    public var next: HearthInstant?

    public init() {}

    /// Adds what another function or model has, with what its device knows of it: nil of what is not there.
    public mutating func add(_ other: Reclaimable, bytes: (WorkerID) -> Int64?) {
      next = [next, other.next].compactMap(\.self).min()
      for var candidate in other.candidates {
        guard let bytes = bytes(candidate.id) else { continue }
        candidate.bytes = bytes
        candidates.append(candidate)
      }
    }
  }

  /// The idle workers that others may take the place of, now or later. Their sizes and priorities are the shell's to
  /// fill in.
  public mutating func reclaimable(now: HearthInstant) -> Reclaimable {
    var found = Reclaimable()
    let surplus = poolSize - floor(now: now)
    guard !isRetired, surplus > 0 else { return found }
    for id in available where found.candidates.count < surplus {
      guard let worker = workers[id], worker.inFlight.isEmpty else { continue }
      let free = residencyEnd(worker)
      // What is kept by word of the policy is passed over; what is kept for a moment may be worth to wait for.
      guard free <= now || policy.residencyMin == nil else {
        found.next = min(found.next ?? free, free)
        continue
      }
      var candidate = Eviction.Candidate(id: id, idle: worker.idleSince.duration(to: now), bytes: 0)
      candidate.freeAt = free
      candidate.usage = usage
      candidate.loadTime = startEstimate.value ?? .zero
      found.candidates.append(candidate)
    }
    return found
  }

  /// Until when a worker keeps its memory although others wait for it: a load is not thrown away before it was of use.
  ///
  /// Left to itself that is twice the time of a load, unless nobody has asked for the worker for a quarter of one. So
  /// two models that do not fit together, and are both in demand, work two thirds of the time and load one third, while
  /// one that was called once gives way at once.
  private func residencyEnd(_ worker: Worker) -> HearthInstant {
    if let least = policy.residencyMin { return worker.readyAt.advanced(by: least) }
    let load = startEstimate.value ?? .zero
    return min(worker.readyAt.advanced(by: load * 2), worker.idleSince.advanced(by: load / 4))
  }

  /// Its node needs the memory of an idle worker. Nothing follows if it is not idle any more.
  public mutating func workerReclaimed(_ id: WorkerID, now: HearthInstant) -> [Action] {
    elapse(to: now)
    guard !isRetired, workers[id]?.state == .ready, workers[id]?.inFlight.isEmpty == true else { return [] }
    stop(id, .reclaimed, now: now)
    return takeActions()
  }

  /// What a request to make room although in use comes to.
  public enum Yielding: Sendable {
    case yielded(WorkerID, [Action])
    /// There is none to spare; some may be at this instant.
    case none(until: HearthInstant?)
  }

  /// Another function or model has waited too long for memory: one worker finishes what it has and stops.
  ///
  /// - Parameters:
  ///   - toSuccessor: whether it is for the next version of the same function, which `min-workers` is meant for too.
  ///   - isThere: whether a worker holds memory of the kind that is needed.
  public mutating func workerYielded(
    toSuccessor: Bool = false, now: HearthInstant, where isThere: (WorkerID) -> Bool = { _ in true }
  ) -> Yielding {
    elapse(to: now)
    guard !isRetired, toSuccessor || poolSize > floor(now: now) else { return .none(until: nil) }
    let ready = workers.filter { $0.value.state == .ready && isThere($0.key) }
    // Idle ones first, then the one that has been there for longest.
    guard let (id, worker) = ready.min(by: { yieldOrder($0) < yieldOrder($1) }) else { return .none(until: nil) }
    let load = startEstimate.value ?? .zero
    let free = worker.readyAt.advanced(by: policy.residencyMin ?? load * 2)
    guard toSuccessor || free <= now else { return .none(until: free) }
    if worker.inFlight.isEmpty {
      stop(id, .yielded, now: now)
    } else {
      drain(id, .yielded, now: now)
    }
    recover(now: now)
    return .yielded(id, takeActions())
  }

  private func yieldOrder(_ entry: (key: WorkerID, value: Worker)) -> (Int, WorkerID) {
    (entry.value.inFlight.isEmpty ? 0 : 1, entry.key)
  }
}
