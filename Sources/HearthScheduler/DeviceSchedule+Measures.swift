import HearthCore

/// What is seen of memory: by workers, by the host's own processes, by others.
extension DeviceSchedule {
  /// A worker's memory was measured. It counts from now on, for this one and for those to come.
  ///
  /// - Parameters:
  ///   - peak: the most that it took while it was loaded, which the next one is reserved.
  ///   - kept: as with `workerEnded`.
  public mutating func workerMeasured(
    _ id: WorkerID, bytes: Int64, peak: Int64 = 0, kept: Int64 = 0, now: HearthInstant
  ) -> [Action] {
    overhead = max(0, overhead + kept)
    guard let grant = grants[id] else { return [] }
    measured[grant.owner] = max(bytes, peak, measured[grant.owner] ?? 0)
    granted += bytes - grant.bytes
    if grant.isLeaving { leavingBytes += bytes - grant.bytes }
    grants[id]!.bytes = bytes
    return excess() + pump(now: now)
  }

  /// A granted worker got less memory than its load needed: the next of its owner is to get half as much again.
  public mutating func workerRanOut(_ id: WorkerID) {
    guard let grant = grants[id] else { return }
    measured[grant.owner] = min(bytesMax, grant.bytes + max(grant.bytes / 2, DeviceSchedule.ranOutMin))
  }

  /// What the host's own processes take: what is there for good, what is not, and spare ones.
  public mutating func overheadMeasured(
    _ steady: Int64, passing: Int64 = 0, spares: Int64 = 0, now: HearthInstant
  ) -> [Action] {
    self.steady = max(0, steady)
    overhead = self.steady + max(0, passing)
    self.spares = max(0, spares)
    return excess() + pump(now: now)
  }

  /// Processes of the host's own have come to take so much more, or less if negative.
  public mutating func overheadGrew(_ bytes: Int64, now: HearthInstant) -> [Action] {
    overhead = max(0, overhead + bytes)
    return excess() + pump(now: now)
  }

  /// All that is in use of a device, whoever uses it.
  public mutating func usedMeasured(_ used: Int64, now: HearthInstant) -> [Action] {
    noteUsed(used)
    return excess() + pump(now: now)
  }

  /// What workers do not hold others do. Those that are starting may hold all they are granted by now, or nothing yet:
  /// as long as that explains what is in use, others are taken to use what they did before.
  public mutating func noteUsed(_ used: Int64) {
    let settled = grants.values.reduce(Int64(0)) { $0 + ($1.isStarting ? 0 : $1.bytes) }
    overhead = min(max(overhead, used - granted, 0), max(0, used - settled))
    foreign = overhead
  }

  private func excess() -> [Action] { held > memory ? [.reclaimExcess(held - memory)] : [] }
}
