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
    workers.filter { $0.value.state != .gone }.sorted { $0.key < $1.key }.map { id, worker in
      let state: WorkerSnapshot.State =
        switch worker.state {
        case .asked, .starting: .starting
        case .ready: worker.inFlight.isEmpty ? .idle : .busy
        case .draining: .draining
        case .stopping, .gone: .stopping
        }
      return WorkerSnapshot(
        id: id, state: state, inFlight: worker.inFlight.count,
        idle: state == .idle ? worker.idleSince.duration(to: now) : nil)
    }
  }

  /// How many requests are before this one in the queue; nil when it does not wait.
  public func position(of id: InvocationID) -> Int? { queue.firstIndex { $0.id == id } }

  /// How long a request with that many before it will wait, as starts and requests so far tell; nil before the first.
  public func expectedWait(position: Int, now: HearthInstant) -> Duration? {
    let service = serviceEstimate.value ?? .zero
    let slots = max(1, readyCount * policy.concurrencyMax)
    let queued = service * (position + (readyCount > 0 ? 1 : 0)) / slots
    guard readyCount == 0 else { return serviceEstimate.value == nil ? nil : queued }
    guard let start = startEstimate.value else { return nil }
    let began = workers.values.compactMap(\.state.startBegan).min()
    let elapsed = began?.duration(to: now) ?? .zero
    return max(.zero, start - elapsed) + queued
  }

  /// The last decisions about the pool, the newest last.
  public var decisions: [ScalingDecision] { Array(log.entries) }

  /// Whether a worker has taken a request and lives.
  public func hasServed(_ id: WorkerID) -> Bool {
    guard let worker = workers[id], worker.hasServed else { return false }
    return worker.state == .ready || worker.state.isDraining
  }

  /// Whether a worker waits for its node's leave to start.
  public func isAsked(_ id: WorkerID) -> Bool {
    if case .asked = workers[id]?.state { true } else { false }
  }

  /// Whether a worker was told to end.
  public func isEnding(_ id: WorkerID) -> Bool { workers[id]?.state == .stopping }

  /// The reason and remaining memory of a load that failed for good; nil while loads work.
  public func rememberedFailure(now: HearthInstant) -> (reason: String, remaining: Duration)? {
    guard loadFailures.isRemembered, let retryAt = loadFailures.retryAt, retryAt > now else { return nil }
    return (loadFailures.reason, now.duration(to: retryAt))
  }
}
