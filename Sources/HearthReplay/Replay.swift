import HearthCore
import HearthScheduler

/// A trace run against the schedules of a gateway in virtual time: the same values decide, and only workers, clients
/// and the clock are simulated.
public struct Replay {
  public struct Options: Sendable {
    /// How long a worker takes from its start until it is ready.
    public var startTime = Duration.seconds(1)
    /// What a worker takes where the trace does not say.
    public var workerMemory = ByteSize.gib(1)
    /// What all workers may take together; nil is no limit.
    public var workersMemory: ByteSize?
    /// How many workers may be starting at once; nil is no limit.
    public var startsMax: Int?
    /// Which idle workers make room for others.
    public var eviction = Eviction.lru
    /// Whether starts and requests take no time, so that each request is done before the next comes and the memory
    /// alone decides what starts.
    public var isInstant = false
    /// Into how many parts of equal length the report's timeline cuts the trace.
    public var timelineParts = 240

    public init() {}
  }

  enum Event {
    case finish(Int32, WorkerID)
    case ready(WorkerID)
    case wake(Int)
    case wakeNode
  }

  struct Function {
    var schedule: FunctionSchedule
    let name: FunctionName
    let bytes: Int64
    var wakeAt: HearthInstant?
    /// Its workers, by their numbers less the first.
    var workers: [Worker?] = []
    var outcome = ReplayReport.Function()
  }

  struct Worker {
    /// Whether its node has let it start.
    var isGranted = false
    var isReady = false
    var running = 0
    var since: HearthInstant
  }

  /// A thousand million numbers for each function's workers: more than any trace starts.
  static let workerNumberStride: UInt64 = 1_000_000_000

  let trace: Trace
  let options: Options
  let end: HearthInstant
  /// Requests that have come and have no worker yet.
  var waiting = 0
  var functions: [Function]
  var node: DeviceSchedule
  var nodeWakeAt: HearthInstant?
  var events = EventQueue<Event>()
  var now = HearthInstant(nanoseconds: 0)
  var report: ReplayReport

  init(_ trace: Trace, _ policy: FunctionPolicy, _ options: Options) {
    self.trace = trace
    self.options = options
    end = HearthInstant(nanoseconds: trace.length.nanoseconds)
    functions = trace.functions.enumerated().map { index, function in
      let first = UInt64(index) * Replay.workerNumberStride + 1
      return Function(
        schedule: FunctionSchedule(
          policy: policy, startMode: .spawn, numbers: WorkerNumbers(first: first, count: Replay.workerNumberStride)),
        // The trace's own names may be any text; the schedules only tell them apart.
        name: try! FunctionName("f\(index)"), bytes: (function.memory ?? options.workerMemory).bytes)
    }
    node = DeviceSchedule(
      memory: options.workersMemory?.bytes ?? Int64.max / 4, startsMax: options.startsMax ?? Int.max,
      eviction: options.eviction)
    report = ReplayReport(length: trace.length, timelineParts: options.timelineParts)
  }

  /// Runs a trace under a policy.
  ///
  /// - Parameter progress: told from time to time which share is done.
  public static func run(
    _ trace: Trace, _ policy: FunctionPolicy, _ options: Options = Options(), progress: (Double) -> Void = { _ in }
  ) -> ReplayReport {
    var replay = Replay(trace, policy, options)
    return replay.run(progress)
  }

  private mutating func run(_ progress: (Double) -> Void) -> ReplayReport {
    for index in functions.indices { activate(index) }
    var arrived = 0
    while true {
      let arrival = arrived < trace.arrivals.count ? trace.arrivals[arrived].at : nil
      let next = [arrival, events.nextAt].compactMap { $0 }.min()
      // What has come is served, also after the end; workers are booked until then.
      guard let next, next <= end || waiting > 0 else { break }
      now = max(now, next)
      // At one instant what ends goes first: its worker may take what arrives.
      if let at = events.nextAt, arrival.map({ at <= $0 }) ?? true {
        perform(events.removeFirst())
      } else {
        arrive(arrived)
        arrived += 1
        if arrived % 65_536 == 0 { progress(Double(arrived) / Double(trace.arrivals.count)) }
      }
    }
    now = max(now, end)
    for (index, function) in functions.enumerated() {
      for number in function.workers.indices {
        account(WorkerID(UInt64(index) * Replay.workerNumberStride + UInt64(number) + 1))
      }
    }
    progress(1)
    report.functions = functions.map(\.outcome)
    return report
  }

  private mutating func activate(_ index: Int) {
    if let beginning = trace.beginning { functions[index].schedule.wallClockRead(offset: beginning) }
    let policy = functions[index].schedule.policy
    take(functions[index].schedule.activated(workers: policy.workersInitial ?? 0, now: now), index)
  }

  private mutating func arrive(_ number: Int) {
    let index = Int(trace.arrivals[number].function)
    functions[index].outcome.requests += 1
    waiting += 1
    report.timeline.addRequest(at: now)
    take(functions[index].schedule.invocationArrived(InvocationID(UInt64(number)), cache: node.cache, now: now), index)
  }

  private mutating func perform(_ event: Event) {
    switch event {
    case .finish(let number, let worker):
      account(worker)
      // One that did not finish within drain-timeout is gone.
      self[worker]?.running -= 1
      let index = Replay.function(of: worker)
      let id = InvocationID(UInt64(number))
      take(functions[index].schedule.invocationFinished(id, on: worker, now: now), index)
      take(node.workerFellIdle(now: now))
    case .ready(let id):
      guard self[id] != nil else { return }
      let index = Replay.function(of: id)
      account(id)
      self[id]!.isReady = true
      take(functions[index].schedule.workerBecameReady(id, now: now), index)
      take(node.workerBecameReady(id, now: now))
    case .wake(let index):
      guard let at = functions[index].wakeAt, at <= now else { return }
      functions[index].wakeAt = nil
      take(functions[index].schedule.timeReached(now: now), index)
    case .wakeNode:
      guard let at = nodeWakeAt, at <= now else { return }
      nodeWakeAt = nil
      take(node.timeReached(now: now))
    }
  }

  private mutating func take(_ actions: [FunctionSchedule.Action], _ index: Int) {
    for action in actions {
      switch action {
      case .run(let id, let worker, let kind): run(id, worker, kind, index)
      case .reject(let id, _): refuse(id, index)
      case .startWorker(let id, let reason): ask(id, reason, index)
      case .stopWorker(let id, _), .killWorker(let id, _): end(id, index)
      case .wake(let instant):
        if let at = functions[index].wakeAt, at <= instant { continue }
        functions[index].wakeAt = instant
        events.add(.wake(index), at: max(instant, now))
      case .hurryWorker(let id): take(node.startBecameUrgent(id, now: now))
      case .sendAhead, .recall: preconditionFailure("simulated workers take nothing ahead")
      }
    }
  }

  private mutating func run(_ id: InvocationID, _ worker: WorkerID, _ kind: FunctionSchedule.StartKind, _ index: Int) {
    account(worker)
    waiting -= 1
    self[worker]!.running += 1
    let arrival = trace.arrivals[Int(id.rawValue)]
    if kind == .cold {
      functions[index].outcome.cold += 1
      report.timeline.addColdStart(at: now)
    }
    report.addWait(arrival.at.duration(to: now))
    let duration = options.isInstant ? .zero : Duration.nanoseconds(arrival.duration)
    events.add(.finish(Int32(id.rawValue), worker), at: now.advanced(by: duration))
  }

  private mutating func refuse(_ id: InvocationID, _ index: Int) {
    waiting -= 1
    functions[index].outcome.refused += 1
  }

  // Workers and their node.

  private mutating func ask(_ id: WorkerID, _ reason: FunctionSchedule.StartReason, _ index: Int) {
    report.starts += 1
    if reason == .prewarm { report.prewarms += 1 }
    functions[index].workers.append(Worker(since: now))
    let (name, bytes) = (functions[index].name, functions[index].bytes)
    take(node.startAsked(id, of: WorkerOwner(function: name), .init(declared: bytes, reason.urgency), now: now))
  }

  private mutating func end(_ id: WorkerID, _ index: Int) {
    account(id)
    self[id] = nil
    take(functions[index].schedule.workerExited(id, now: now), index)
    take(node.workerEnded(id, now: now))
  }

  private mutating func take(_ actions: [DeviceSchedule.Action]) {
    for action in actions {
      switch action {
      case .grant(let id):
        guard self[id] != nil else { continue }
        let index = Replay.function(of: id)
        self[id]!.isGranted = true
        self[id]!.since = now
        report.noteAlive(node.workerCount)
        take(functions[index].schedule.workerStartBegan(id, now: now), index)
        events.add(.ready(id), at: now.advanced(by: options.isInstant ? .zero : options.startTime))
      case .refuse(let id, _):
        guard self[id] != nil else { continue }
        let index = Replay.function(of: id)
        self[id] = nil
        take(
          functions[index].schedule.workerFailedToStart(id, .tooLarge, reason: "it is larger than the node", now: now),
          index)
      case .reclaim(let ids):
        for (index, id) in ids.enumerated() {
          reclaim(node.missing(for: id, after: ids[..<index]), for: Replay.function(of: id))
        }
      case .reclaimExcess, .dropSpares: preconditionFailure("simulated workers take what was expected")
      case .yield(let names, let id): yield(names, for: id)
      case .wake(let instant):
        if let at = nodeWakeAt, at <= instant { continue }
        nodeWakeAt = instant
        events.add(.wakeNode, at: max(instant, now))
      }
    }
  }

  private mutating func reclaim(_ bytes: Int64, for asking: Int) {
    guard bytes > 0 else { return }
    var found = FunctionSchedule.Reclaimable()
    for index in functions.indices where functions[index].schedule.workerCount > 0 && index != asking {
      found.add(functions[index].schedule.reclaimable(now: now), bytes: node.grantedBytes)
    }
    let chosen = node.victims(among: found, bytes: bytes, now: now)
    for victim in chosen.victims {
      node.workerEvicted(victim)
      report.reclaimed += 1
      let index = Replay.function(of: victim.id)
      take(functions[index].schedule.workerReclaimed(victim.id, now: now), index)
    }
    if let next = chosen.next { take(node.roomExpected(at: next)) }
  }

  private mutating func yield(_ owners: [WorkerOwner], for id: WorkerID) {
    var next: HearthInstant?
    for owner in owners {
      guard let index = functions.firstIndex(where: { $0.name == owner.function }) else { continue }
      switch functions[index].schedule.workerYielded(now: now) {
      case .none(let until): next = [next, until].compactMap(\.self).min()
      case .yielded(let worker, let actions):
        node.workerYielded(worker)
        return take(actions, index)
      }
    }
    take(node.roomDenied(for: id, until: next, now: now))
  }

  /// Books what a worker did since it was last looked at.
  private mutating func account(_ id: WorkerID) {
    let now = min(now, end)
    guard let worker = self[id], worker.isGranted, now > worker.since else { return }
    self[id]!.since = now
    let time = worker.since.duration(to: now).seconds
    let bytes = functions[Replay.function(of: id)].bytes
    report.book(time: time, bytes: bytes, isIdle: worker.isReady && worker.running == 0)
    report.timeline.book(from: worker.since, to: now)
  }

  private static func function(of id: WorkerID) -> Int { Int((id.rawValue - 1) / workerNumberStride) }

  private static func number(of id: WorkerID) -> Int { Int((id.rawValue - 1) % workerNumberStride) }

  private subscript(id: WorkerID) -> Worker? {
    get { functions[Replay.function(of: id)].workers[Replay.number(of: id)] }
    set { functions[Replay.function(of: id)].workers[Replay.number(of: id)] = newValue }
  }
}
