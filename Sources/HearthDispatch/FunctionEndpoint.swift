import HearthBundle
import HearthCore
import HearthHTTP1
import HearthScheduler
import HearthWorker
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// The shell around one version's `FunctionSchedule`: facts go in under a lock, and the actions that come out are
/// carried out after it.
public final class FunctionEndpoint: Sendable {
  /// How a worker came up, for the `Server-Timing` of the request that waited for it.
  struct StartTiming: Sendable {
    var spawn = Duration.zero
    var load = Duration.zero
    /// Whether its model was kept in the machine's memory.
    var isRestored = false

    /// What `Hearth-Model-State` says of the request that waited for it.
    var modelState: String { isRestored ? "restored" : "loaded" }
  }

  struct WorkerEntry {
    let handle: any WorkerHandle
    /// The device that is its; nil where it needs none.
    var device: Device?
    var timing = StartTiming()
    var pid: Int32?
    var note: String?
    var fraction: Double?
    /// The most it took when it was measured.
    var memory: ByteSize?
    private(set) var nextMeasure = HearthInstant(nanoseconds: 0)
    private var measureInterval = Duration.seconds(15)

    init(handle: any WorkerHandle) { self.handle = handle }

    /// Twice as long after each measurement, up to an hour.
    mutating func measureAgain(after now: HearthInstant) {
      nextMeasure = now.advanced(by: measureInterval)
      measureInterval = min(measureInterval * 2, .seconds(3_600))
    }
  }

  // Invocations belong to their event loops; here they are only held and handed on.
  struct State: @unchecked Sendable {
    var schedule: FunctionSchedule
    /// Invocations in the queue. Those on a worker are held by their connection.
    var waiting: [InvocationID: Invocation] = [:]
    /// Those that a worker has which answers in order, in case they have to be taken back.
    var sent: [InvocationID: Invocation] = [:]
    /// Those that their worker was asked to give back, by the name of the copy.
    var recalled: [String: Invocation] = [:]
    var workers: [WorkerID: WorkerEntry] = [:]
    /// Workers that are being started and have no entry yet.
    var launching: Set<WorkerID> = []
    /// For how many requests its model was brought back from the machine's memory.
    var restores = 0
    /// The most that any of its workers was measured to take.
    var measured: ByteSize?
    var arrivals = ArrivalBuffer()
    var alarm = Alarm()
    var activations: [EventLoopPromise<Void>] = []
    var emptied: [EventLoopPromise<Void>] = []
  }

  /// An action with what it concerns, looked up under the lock.
  enum Effect {
    case run(Invocation, any WorkerHandle, FunctionSchedule.StartKind, StartTiming, isAhead: Bool)
    case recall(Invocation, any WorkerHandle)
    case reject(Invocation, FunctionSchedule.Rejection)
    case start(WorkerID, FunctionSchedule.StartReason)
    case hurry(WorkerID)
    case withdrawStart(WorkerID)
    case stop(any WorkerHandle, makesRoom: Bool)
    case stopLoading(any WorkerHandle)
    case kill(any WorkerHandle)
    case wake(HearthInstant)
  }

  public let version: DeployedVersion
  /// The model that its workers load; nil where the function is not one of many.
  public let model: Model?
  let owner: WorkerOwner
  /// The version as `Hearth-Version` has it.
  let shortDigest: String
  let surroundings: EndpointSurroundings
  let state: NIOLockedValueBox<State>

  var clock: any HearthClock { surroundings.clock }
  var node: WorkerNode { surroundings.node }

  /// - Parameters:
  ///   - incarnation: tells the model from one of the same name that was taken away.
  ///   - number: counts the deploys of a gateway.
  ///   - rests: how long the function was without requests, the newest last.
  init(
    _ version: DeployedVersion, _ model: Model? = nil, incarnation: Int = 0, number: Int, rests: [Duration] = [],
    _ surroundings: EndpointSurroundings
  ) {
    self.version = version
    self.model = model
    self.surroundings = surroundings
    owner = WorkerOwner(
      function: version.name, version: number, model: model?.name, incarnation: incarnation)
    shortDigest = version.digest.short
    var schedule = FunctionSchedule(
      policy: version.policy.of(model), startMode: version.forks ? .fork : .spawn,
      pipelines: version.isHandler, numbers: WorkerNumbers(first: surroundings.numbers()))
    schedule.restsObserved(rests)
    schedule.wallClockRead(offset: surroundings.clock.wallOffset)
    state = NIOLockedValueBox(State(schedule: schedule))
  }

  // Requests.

  /// Admits an invocation: it runs, waits or is rejected. Call on its event loop.
  func submit(_ invocation: Invocation) {
    decide(arriving: invocation) {
      $0.invocationArrived(
        invocation.id, isWhole: invocation.bodyEnded, lane: invocation.lane, wasAnnounced: invocation.isAnnounced,
        cache: node.cache(for: self), now: $1)
    }
  }

  /// A request is on its way whose body is not there yet.
  func announce() {
    decide { $0.invocationAnnounced(now: $1) }
  }

  /// The client of an announced request left before its body was there.
  func withdrawAnnouncement() {
    decide { $0.announcementWithdrawn(now: $1) }
  }

  /// A worker is done with an invocation.
  func finished(_ invocation: Invocation, on worker: WorkerID, isWorkerLost: Bool = false) {
    decide(leaving: invocation) {
      $0.invocationFinished(invocation.id, on: worker, isWorkerLost: isWorkerLost, now: $1)
    } also: {
      if let arrival = invocation.recorded(until: clock.now) { $0.arrivals.append(arrival) }
    }
    // Before, a worker's memory says little of what it will take; the sooner it is known the better others fit beside.
    if invocation.waitedForStart, isUnmeasured { node.measureSoon(self) }
    node.workerMayBeIdle()
  }

  /// Whether none of its workers was measured yet. Of those to come the first one's measure is a good guess.
  private var isUnmeasured: Bool { state.withLockedValue { $0.measured == nil } }

  /// Its worker was asked for the invocation's last copy.
  func expectBack(_ invocation: Invocation) {
    state.withLockedValue { $0.recalled[invocation.copyName] = invocation }
  }

  /// A worker's current request keeps its connection from taking others behind it.
  func heldUp(_ worker: WorkerID) {
    state.withLockedValue { $0.schedule.workerHeldUp(worker) }
  }

  /// The invocation is the gateway's again: its worker had not begun it, or the function may be called twice.
  func withdrew(_ invocation: Invocation, from worker: any WorkerHandle, isWorkerLost: Bool = false) {
    decide(arriving: invocation, leaving: invocation) {
      $0.invocationWithdrawn(invocation.id, from: worker.id, isWorkerLost: isWorkerLost, now: $1)
    }
  }

  /// No byte of an invocation reached its worker, which is of no use any more.
  func returned(_ invocation: Invocation, from worker: any WorkerHandle) {
    worker.kill()
    decide(arriving: invocation, leaving: invocation) { $0.invocationReturned(invocation.id, from: worker.id, now: $1) }
  }

  /// The client of a waiting invocation left.
  func abandon(_ invocation: Invocation) {
    perform(
      state.withLockedValue { state in
        state.waiting[invocation.id] = nil
        return resolve(state.schedule.invocationAbandoned(invocation.id, now: clock.now), &state)
      })
  }

  // The life of the version.

  /// Begins to serve: starts what the policy keeps without requests, and at least as many workers as given. The future
  /// succeeds when one of these is ready, and fails with the reason of the first failed start.
  func activate(workers: Int) -> EventLoopFuture<Void> {
    guard workers > 0 else {
      decide { $0.activated(workers: 0, now: $1) }
      return surroundings.timers.makeSucceededVoidFuture()
    }
    let promise = surroundings.timers.makePromise(of: Void.self)
    state.withLockedValue { $0.activations.append(promise) }
    decide { $0.activated(workers: workers, now: $1) }
    return promise.futureResult
  }

  /// Stops taking requests; the future succeeds when the last worker is gone.
  func retire() -> EventLoopFuture<Void> {
    let promise = surroundings.timers.makePromise(of: Void.self)
    state.withLockedValue { $0.emptied.append(promise) }
    decide { $0.retired(now: $1) }
    settleActivations(.failure(HearthError(.functionGone, "The version was taken away before it was ready.")))
    settleIfEmpty()
    return promise.futureResult
  }

  /// Whether no worker is left.
  var isEmpty: Bool { state.withLockedValue { $0.schedule.workerCount == 0 } }

  /// The policy in force, live values included.
  public var policy: FunctionPolicy { state.withLockedValue { $0.schedule.policy } }

  var requestTimeout: Duration? { state.withLockedValue { $0.schedule.policy.requestTimeout } }

  public func setPolicy(_ policy: FunctionPolicy) {
    decide { $0.policyChanged(policy.of(model), now: $1) }
  }

  // Deciding and acting.

  /// Tells the schedule a fact and carries out what follows. `arriving` is the invocation that the fact brings,
  /// `leaving` one that its worker has no more; `also` changes what else belongs to it.
  func decide(
    arriving: Invocation? = nil, leaving: Invocation? = nil,
    _ fact: (inout FunctionSchedule, HearthInstant) -> [FunctionSchedule.Action],
    also: (inout State) -> Void = { _ in }
  ) {
    perform(
      state.withLockedValue { state in
        defer { also(&state) }
        if let leaving {
          if !state.sent.isEmpty { state.sent[leaving.id] = nil }
          if !state.recalled.isEmpty { state.recalled[leaving.copyName] = nil }
        }
        return resolve(fact(&state.schedule, clock.now), &state, arriving: arriving)
      })
  }

  /// Looks up what the actions concern. An arriving invocation that neither runs nor is rejected now waits.
  func resolve(
    _ actions: [FunctionSchedule.Action], _ state: inout State, arriving: Invocation? = nil
  ) -> [Effect] {
    var arriving = arriving
    var effects: [Effect] = []
    effects.reserveCapacity(actions.count)
    func take(_ id: InvocationID) -> Invocation {
      if let found = arriving, found.id == id {
        arriving = nil
        return found
      }
      guard let invocation = state.waiting.removeValue(forKey: id) else {
        preconditionFailure("the schedule decides only about invocations that wait")
      }
      return invocation
    }
    func run(_ id: InvocationID, on worker: WorkerID, _ kind: FunctionSchedule.StartKind, isAhead: Bool) {
      guard let entry = state.workers[worker] else {
        preconditionFailure("the schedule runs invocations only on workers that were started")
      }
      let invocation = take(id)
      if state.schedule.pipelines { state.sent[id] = invocation }
      if entry.timing.isRestored, kind == .zygote || kind == .cold { state.restores += 1 }
      effects.append(.run(invocation, entry.handle, kind, entry.timing, isAhead: isAhead))
    }
    for action in actions {
      switch action {
      case .run(let id, let worker, let kind): run(id, on: worker, kind, isAhead: false)
      case .sendAhead(let id, let worker): run(id, on: worker, .warm, isAhead: true)
      case .recall(let id, let worker):
        guard let invocation = state.sent[id], let entry = state.workers[worker] else { continue }
        effects.append(.recall(invocation, entry.handle))
      case .reject(let id, let rejection): effects.append(.reject(take(id), rejection))
      case .startWorker(let id, let reason):
        surroundings.logger.debug("start worker", metadata: ["worker": "\(id)", "reason": "\(reason)"])
        effects.append(.start(id, reason))
        if state.schedule.numbers.runOut { state.schedule.addNumbers(first: surroundings.numbers()) }
      case .hurryWorker(let id): effects.append(.hurry(id))
      case .stopWorker(let id, let reason):
        surroundings.logger.debug("stop worker", metadata: ["worker": "\(id)", "reason": "\(reason)"])
        if let entry = state.workers[id] { effects.append(.stop(entry.handle, makesRoom: reason.makesRoom)) }
      case .killWorker(let id, let reason):
        surroundings.logger.info("kill worker", metadata: ["worker": "\(id)", "reason": "\(reason)"])
        if let entry = state.workers[id] {
          effects.append(reason.isPatient ? .stopLoading(entry.handle) : .kill(entry.handle))
        } else if !state.launching.contains(id) {
          effects.append(.withdrawStart(id))
        }
      case .wake(let instant): effects.append(.wake(instant))
      }
    }
    if let arriving { state.waiting[arriving.id] = arriving }
    return effects
  }

  func perform(_ effects: [Effect]) {
    for effect in effects {
      switch effect {
      case .run(let invocation, let worker, let kind, let timing, let isAhead):
        // Without a closure where none is needed: this is every request.
        if invocation.isOnLoop {
          invocation.run(on: worker, kind, timing, isAhead: isAhead)
        } else {
          invocation.onLoop { $0.run(on: worker, kind, timing, isAhead: isAhead) }
        }
      case .recall(let invocation, let worker):
        invocation.onLoop { $0.recall(from: worker) }
      case .reject(let invocation, let rejection):
        invocation.onLoop { $0.rejected(rejection) }
      case .start(let id, let reason): node.ask(id, for: self, reason)
      case .hurry(let id): node.hurry(id)
      case .withdrawStart(let id): withdrawStart(id)
      case .stop(let worker, let makesRoom):
        node.leaves(worker.id)
        if makesRoom { node.keep(worker, of: self) }
        worker.stop()
      case .stopLoading(let worker):
        // In a process that others share it may go on for a while, and holds its memory.
        if !version.sharesProcesses { node.leaves(worker.id) }
        worker.stop()
      case .kill(let worker):
        node.leaves(worker.id)
        worker.kill()
      case .wake(let instant):
        state.withLockedValue {
          $0.alarm.set(instant, now: clock.now, on: surroundings.timers) { [self] in alarmRang() }
        }
      }
    }
  }

  private func alarmRang() {
    state.withLockedValue { state in
      state.alarm.rang()
      state.schedule.wallClockRead(offset: clock.wallOffset)
    }
    decide { $0.timeReached(now: $1) }
  }

  func settleActivations(_ result: Result<Void, any Error>) {
    var settled: [EventLoopPromise<Void>] = []
    state.withLockedValue { swap(&settled, &$0.activations) }
    for promise in settled { promise.completeWith(result) }
  }

  /// Tells those who wait for a retired version's last worker once it is gone.
  func settleIfEmpty() {
    var emptied: [EventLoopPromise<Void>] = []
    state.withLockedValue { state in
      if state.schedule.isRetired, state.schedule.workerCount == 0 { swap(&emptied, &state.emptied) }
    }
    for promise in emptied { promise.succeed() }
  }
}

/// What all endpoints of a gateway share.
struct EndpointSurroundings: Sendable {
  let host: any WorkerHost
  let node: WorkerNode
  let clock: any HearthClock
  let timers: any EventLoop
  /// Blocks of numbers for workers.
  let numbers: @Sendable () -> UInt64
  /// What models take, as those of the same function did; nil where there is but one.
  var prediction: NIOLockedValueBox<MemoryPrediction>?
  let logger: Logger
}
