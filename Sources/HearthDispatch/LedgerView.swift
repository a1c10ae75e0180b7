import HearthCore

/// How a device's memory stands, or the machine's.
public struct LedgerView: Sendable {
  public let name: String
  /// What it is sold as; nil of the machine's own memory.
  public let model: String?
  public let budget: ByteSize
  public let granted: ByteSize
  public let overhead: ByteSize
  public let workers: Int
  /// Workers that wait for memory or for their turn to start.
  public let waiting: Int
  public let eviction: Eviction
  /// Idle workers that made room, and how long they had been idle on average.
  public let evictions: Int
  public let evictionIdle: Duration?
  /// Workers in use that made room.
  public let yields: Int
  /// What is wrong with it; nil when nothing is.
  public let note: String?
}

extension DeviceLedger {
  var view: LedgerView {
    state.withLockedValue { state in
      LedgerView(
        name: device?.name ?? "cpu", model: device?.model, budget: ByteSize(bytes: state.schedule.memory),
        granted: ByteSize(bytes: state.schedule.granted),
        overhead: ByteSize(bytes: state.schedule.overhead + state.schedule.spares), workers: state.schedule.workerCount,
        waiting: state.schedule.waitingCount, eviction: state.schedule.eviction, evictions: state.evictions.idle,
        evictionIdle: state.evictions.idle > 0 ? state.evictions.idleTime / state.evictions.idle : nil,
        yields: state.evictions.inUse, note: note(state))
    }
  }

  /// 10 s: a driver frees what a process had long before.
  private static let returnTime = Duration.seconds(10)

  private func note(_ state: State) -> String? {
    guard let left = state.unreturned, left.since.duration(to: clock.now) > DeviceLedger.returnTime else { return nil }
    let bytes = ByteSize(bytes: left.bytes).rounded
    return "\(bytes) that worker \(left.worker) had are not free since it ended, and are not used: see nvidia-smi"
  }
}
