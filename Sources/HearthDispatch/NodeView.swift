import HearthCore

/// How a node's memory stands.
public struct NodeView: Sendable {
  public let name: String
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
}

extension WorkerNode {
  var view: NodeView {
    state.withLockedValue { state in
      NodeView(
        name: "cpu", budget: ByteSize(bytes: state.schedule.memory), granted: ByteSize(bytes: state.schedule.granted),
        overhead: ByteSize(bytes: state.schedule.overhead + state.schedule.spares), workers: state.schedule.workerCount,
        waiting: state.schedule.waitingCount, eviction: state.schedule.eviction, evictions: state.evictions.idle,
        evictionIdle: state.evictions.idle > 0 ? state.evictions.idleTime / state.evictions.idle : nil,
        yields: state.evictions.inUse)
    }
  }
}
