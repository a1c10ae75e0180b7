import HearthCore

/// Whose turn it is, and who makes room.
extension DeviceSchedule {
  /// Grants what may start, in order of turn, and asks for room for what may not.
  mutating func pump(now: HearthInstant) -> [Action] {
    isShort = false
    lastLook = now
    guard !asks.isEmpty else { return [] }
    expireStarts(now: now)
    var actions: [Action] = []
    var isBlocked = false
    var short: [Ask] = []
    asks = asks.sorted { precedes($0, $1, now: now) }
    var index = 0
    while index < asks.count, !isBlocked {
      let ask = asks[index]
      let bytes = bytesNow(of: ask, now: now)
      if isHopeless(ask, bytes, now: now) {
        asks.remove(at: index)
        actions.append(.refuse(ask.id, bytes: bytes))
      } else if startingCount >= startsMax {
        if let startTime {
          let oldest = grants.values.lazy.filter(\.isStarting).map(\.at).min() ?? now
          wake(at: oldest.advanced(by: startTime), &actions)
        }
        break
      } else if used + bytes <= memory, ask.demand.urgency != .spare || short.isEmpty {
        asks.remove(at: index)
        grant(ask, bytes, now: now)
        actions.append(.grant(ask.id))
        // One more start of this function changes whose turn it is.
        asks = asks.sorted { precedes($0, $1, now: now) }
        index = 0
      } else {
        // A small one may pass, until the large one has waited long enough.
        if ask.demand.urgency != .spare {
          short.append(ask)
          isBlocked = isDue(ask, now: now)
        }
        index += 1
      }
    }
    isShort = !short.isEmpty
    return actions + makeRoom(for: short, now: now)
  }

  /// What an ask is granted: after its patience no more than others than workers leave, where nobody has said how much
  /// it takes.
  private func bytesNow(of ask: Ask, now: HearthInstant) -> Int64 {
    let expected = expectedBytes(of: ask)
    guard ask.demand.declared == nil, ask.asked.duration(to: now) >= ask.demand.patience else { return expected }
    return max(ask.demand.least, min(expected, memory - overhead))
  }

  /// Whether an ask can never be granted, or not while others than workers have what they have.
  private func isHopeless(_ ask: Ask, _ bytes: Int64, now: HearthInstant) -> Bool {
    bytes > bytesMax || (bytes > memory - overhead && ask.asked.duration(to: now) >= ask.demand.patience)
  }

  private mutating func grant(_ ask: Ask, _ bytes: Int64, now: HearthInstant) {
    grants[ask.id] = Grant(owner: ask.owner, bytes: bytes, priority: ask.demand.priority, at: now)
    granted += bytes
    cache.turnovers += Double(bytes) / Double(max(memory, 1))
    startingCount += 1
    startingBy[ask.owner, default: 0] += 1
    grantedTo[ask.owner, default: 0] += 1
  }

  private func isDue(_ ask: Ask, now: HearthInstant) -> Bool {
    guard ask.demand.urgency == .demand, ask.asked.duration(to: now) >= ask.demand.patience else { return false }
    if let until = ask.hopelessUntil, now < until { return false }
    return grantedTo[ask.owner] == nil
  }

  /// Whose turn is first: those that have waited too long in the order they came, then by urgency, then functions with
  /// the fewest starts under way, then in the order they came.
  private func precedes(_ left: Ask, _ right: Ask, now: HearthInstant) -> Bool {
    let (leftIsDue, rightIsDue) = (isDue(left, now: now), isDue(right, now: now))
    if leftIsDue != rightIsDue { return leftIsDue }
    if !leftIsDue {
      if left.demand.urgency != right.demand.urgency { return left.demand.urgency < right.demand.urgency }
      let (leftStarts, rightStarts) = (startingBy[left.owner] ?? 0, startingBy[right.owner] ?? 0)
      if leftStarts != rightStarts { return leftStarts < rightStarts }
    }
    return left.asked == right.asked ? left.id < right.id : left.asked < right.asked
  }

  /// Asks for idle workers to stop, and, for a request that has waited too long, for a busy one to finish and stop.
  private mutating func makeRoom(for short: [Ask], now: HearthInstant) -> [Action] {
    guard !short.isEmpty else { return [] }
    var actions: [Action] = []
    let shortest = short.prefix(DeviceSchedule.roomsMax).filter { missing(for: $0) > 0 }
    if !shortest.isEmpty { actions.append(.reclaim(for: shortest.map { $0.id })) }
    if spares > 0, shortest.contains(where: { isHeldUpBySpares($0, now: now) }) { actions.append(.dropSpares) }
    if let due = shortest.first(where: { isDue($0, now: now) }),
      yielded.map({ $0.duration(to: now) >= due.demand.patience }) ?? true
    {
      yielded = now
      actions.append(.yield(holders(for: due), for: due.id))
    }
    wake(at: now.advanced(by: DeviceSchedule.retry), &actions)
    return actions
  }

  /// Whether an ask fits beside no spare processes at all, or has found no other room for a while.
  private func isHeldUpBySpares(_ ask: Ask, now: HearthInstant) -> Bool {
    overhead + spares + expectedBytes(of: ask) > memory || ask.asked.duration(to: now) >= DeviceSchedule.sparePatience
  }

  private mutating func expireStarts(now: HearthInstant) {
    guard let startTime, startingCount >= startsMax else { return }
    for (id, grant) in grants where grant.isStarting && grant.at.duration(to: now) >= startTime {
      endStart(id)
    }
  }

  /// Who could make room: an earlier version of the asker first, then those of lowest priority, of functions that hold
  /// most, that have been there for longest.
  private func holders(for ask: Ask) -> [WorkerOwner] {
    var bytes: [FunctionName: Int64] = [:]
    var since: [WorkerOwner: (priority: Int, at: HearthInstant)] = [:]
    for grant in grants.values where !grant.isStarting && !grant.isLeaving && grant.owner != ask.owner {
      bytes[grant.owner.function, default: 0] += grant.bytes
      let known = since[grant.owner]?.at ?? grant.at
      since[grant.owner] = (grant.priority, min(known, grant.at))
    }
    func rank(_ owner: WorkerOwner) -> (Int, Int, Int64, Int64) {
      let holder = since[owner]!
      return (
        owner.isSucceeded(by: ask.owner) ? 0 : 1, holder.priority, -bytes[owner.function]!, holder.at.nanoseconds
      )
    }
    return since.keys.sorted { left, right in
      let (leftRank, rightRank) = (rank(left), rank(right))
      return leftRank == rightRank ? left < right : leftRank < rightRank
    }
  }
}
