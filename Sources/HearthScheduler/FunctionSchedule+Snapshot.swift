import HearthCore

/// What a schedule shows of itself to `hearth workers` and `hearth describe`.
public struct WorkerSnapshot: Sendable {
  public enum State: String, Sendable {
    case starting
    case idle
    case busy
    case draining
    case stopping
  }

  public let id: WorkerID
  public let state: State
  public let inFlight: Int
  /// How long the worker has been idle; nil unless it is.
  public let idle: Duration?
}

extension FunctionSchedule {
  public func workerSnapshots(now: HearthInstant) -> [WorkerSnapshot] {
    workers.sorted { $0.key < $1.key }.map { id, worker in
      let state: WorkerSnapshot.State =
        switch worker.state {
        case .starting: .starting
        case .ready: worker.inFlight.isEmpty ? .idle : .busy
        case .draining: .draining
        case .stopping: .stopping
        }
      return WorkerSnapshot(
        id: id, state: state, inFlight: worker.inFlight.count,
        idle: state == .idle ? worker.idleSince.duration(to: now) : nil)
    }
  }

  /// Whether a worker was told to end.
  public func isEnding(_ id: WorkerID) -> Bool { workers[id]?.state == .stopping }

  /// The reason and remaining memory of a load that failed for good; nil while loads work.
  public func rememberedFailure(now: HearthInstant) -> (reason: String, remaining: Duration)? {
    guard loadFailures.isRemembered, let retryAt = loadFailures.retryAt, retryAt > now else { return nil }
    return (loadFailures.reason, now.duration(to: retryAt))
  }
}
