import HearthCore
import HearthScheduler

/// What an endpoint shows of itself and of those who wait.
extension FunctionEndpoint {
  public struct WorkerView: Sendable {
    public let snapshot: WorkerSnapshot
    public let pid: Int32?
    /// What the worker last said of its load.
    public let note: String?
    /// What it takes; nil until it was measured.
    public let memory: ByteSize?
    /// Where it runs: `cpu`, or the device that is its.
    public let device: String
  }

  public struct View: Sendable {
    public let workers: [WorkerView]
    public let queued: Int
    public let inFlight: Int
    /// Why loads fail and for how long that is remembered; nil while they work.
    public let failure: (reason: String, remaining: Duration)?
    public let policy: FunctionPolicy
    /// The most that any of its workers was measured to take; nil until one was.
    public let measured: ByteSize?

    public var hasReadyWorker: Bool {
      workers.contains { $0.snapshot.state == .idle || $0.snapshot.state == .busy }
    }
  }

  /// The error that callers get while it cannot be loaded.
  func loadFailure(_ reason: String, retryAfter: Duration?) -> HearthError {
    HearthError(
      .loadFailed, "The \(displayName) cannot be loaded: \(reason)",
      hint: "Its log has the details: hearth logs \(version.name).", retryAfter: retryAfter)
  }

  /// The error that callers get while it does not fit.
  func memoryFailure(_ reason: String) -> HearthError {
    HearthError(
      .memoryExhausted, "The \(displayName) does not fit: \(reason)",
      hint: "Raise workers-memory, or make it smaller.")
  }

  /// How much it is asked for.
  public var usage: Usage { state.withLockedValue { $0.schedule.usage } }

  /// For how many requests its model was brought back from the machine's memory.
  var restores: Int { state.withLockedValue { $0.restores } }

  public func view() -> View {
    let now = clock.now
    return state.withLockedValue { state in
      View(
        workers: state.schedule.workerSnapshots(now: now).map { snapshot in
          let entry = state.workers[snapshot.id]
          return WorkerView(
            snapshot: snapshot, pid: entry?.pid, note: entry?.note, memory: entry?.memory,
            device: entry?.device?.name ?? "cpu")
        },
        queued: state.schedule.queueLength, inFlight: state.schedule.invocationsInFlight,
        failure: state.schedule.rememberedFailure(now: now), policy: state.schedule.policy,
        measured: state.measured)
    }
  }

  /// The last decisions about the pool, the policy in force, and Unix time less the clock that the decisions are in.
  public func decisions() -> (decisions: [ScalingDecision], policy: FunctionPolicy, wallOffset: Duration) {
    state.withLockedValue { ($0.schedule.decisions, $0.schedule.policy, clock.wallOffset) }
  }

  /// How a waiting invocation stands; nil when it does not wait (any more).
  func standing(of invocation: Invocation, now: HearthInstant) -> Standing? {
    state.withLockedValue { state in
      guard let position = state.schedule.position(of: invocation.id) else { return nil }
      let snapshots = state.schedule.workerSnapshots(now: now)
      var standing = Standing(state: .queued, position: position)
      standing.eta = state.schedule.expectedWait(position: position, now: now)
      guard !snapshots.contains(where: { $0.state == .idle || $0.state == .busy }) else { return standing }
      let entry = snapshots.first { $0.state == .starting }.flatMap { state.workers[$0.id] }
      standing.state = entry?.note == nil ? .starting : .loading
      standing.fraction = entry?.fraction
      standing.note = entry?.note
      return standing
    }
  }
}
