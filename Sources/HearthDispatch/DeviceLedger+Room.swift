import HearthCore
import HearthScheduler
import HearthWorker
import NIOConcurrencyHelpers

/// Who makes room on a device, as its schedule decides it.
extension DeviceLedger {
  /// Those that have workers.
  var endpoints: [FunctionEndpoint] {
    let granted = state.withLockedValue { Array($0.granted.values) }
    var seen: Set<ObjectIdentifier> = []
    return granted.filter { seen.insert(ObjectIdentifier($0)).inserted }
  }

  /// Idle workers that could make room, now or later, and whose they are.
  struct Found {
    var reclaimable = FunctionSchedule.Reclaimable()
    var owners: [WorkerID: FunctionEndpoint] = [:]

    /// Those of others than this endpoint, whose own workers stay.
    func sparing(_ endpoint: FunctionEndpoint?) -> FunctionSchedule.Reclaimable {
      var others = reclaimable
      others.candidates.removeAll { owners[$0.id] === endpoint }
      return others
    }
  }

  func candidates() -> Found {
    var found = Found()
    let own = endpoints.map { ($0, $0.reclaimable()) }
    // The endpoints' locks first, then the node's, never both.
    state.withLockedValue { state in
      for (endpoint, reclaimable) in own {
        for candidate in reclaimable.candidates { found.owners[candidate.id] = endpoint }
        found.reclaimable.add(reclaimable, bytes: state.schedule.grantedBytes)
      }
    }
    return found
  }

  /// What would be lost if so many bytes more made room here for an endpoint; infinite when they cannot now.
  func regret(_ bytes: Int64, for asker: FunctionEndpoint) -> Double {
    let others = candidates().sparing(asker)
    return state.withLockedValue { $0.schedule.regret(of: others, bytes: bytes) }
  }

  func reclaim(for ids: [WorkerID]) {
    var found = candidates()
    for (index, id) in ids.enumerated() {
      guard let asker = owner(of: id) else { continue }
      let missing = state.withLockedValue { $0.schedule.missing(for: id, after: ids[..<index]) }
      stop(missing, of: &found, sparing: asker)
    }
  }

  /// Stops workers that hold so many bytes, and takes them out of those found.
  ///
  /// - Parameter asker: whom the memory is for, whose own workers stay; nil where memory is over-committed.
  func stop(_ bytes: Int64, of found: inout Found, sparing asker: FunctionEndpoint?) {
    guard bytes > 0 else { return }
    let others = found.sparing(asker)
    let chosen = state.withLockedValue {
      $0.schedule.victims(among: others, bytes: bytes, mustSuffice: asker != nil, now: clock.now)
    }
    for victim in chosen.victims {
      found.reclaimable.candidates.removeAll { $0.id == victim.id }
      guard let endpoint = found.owners[victim.id], endpoint.reclaim(victim.id) else { continue }
      logger.debug("idle worker makes room", metadata: ["worker": "\(victim.id)"])
      state.withLockedValue { state in
        state.schedule.workerEvicted(victim)
        state.evictions.idle += 1
        state.evictions.idleTime += victim.idle
      }
    }
    if let next = chosen.next { decide { state, _ in state.schedule.roomExpected(at: next) } }
  }

  func yield(_ owners: [WorkerOwner], for asking: WorkerID) {
    guard let asker = owner(of: asking) else { return }
    let endpoints = Dictionary(endpoints.map { ($0.owner, $0) }) { one, _ in one }
    var next: HearthInstant?
    for owner in owners {
      guard let endpoint = endpoints[owner], endpoint !== asker else { continue }
      let here = state.withLockedValue { Set($0.granted.lazy.filter { $0.value === endpoint }.map(\.key)) }
      switch endpoint.yieldWorker(toSuccessor: owner.isSucceeded(by: asker.owner), where: here.contains) {
      case .none(let until): next = [next, until].compactMap(\.self).min()
      case .yielded(let id, _):
        logger.info("worker makes room for one that waits", metadata: ["worker": "\(id)"])
        return state.withLockedValue { state in
          state.schedule.workerYielded(id)
          state.evictions.inUse += 1
        }
      }
    }
    decide { [next] in $0.schedule.roomDenied(for: asking, until: next, now: $1) }
  }
}
