import HearthCore
import HearthTestSupport

@testable import HearthScheduler

/// A function's surroundings in virtual time: clients, processes and timers that do whatever the seed says.
struct SimulatedWorld {
  enum Event {
    case arrival
    case finish(InvocationID, WorkerID)
    case abandon(InvocationID)
    /// The worker lives but takes no byte of the request.
    case returned(InvocationID, WorkerID)
    /// The worker hears that it is to give a request back; it does unless it is at it.
    case recall(InvocationID, WorkerID)
    /// The worker was gone before a byte of the request was written.
    case unreachable(InvocationID, WorkerID)
    case ready(WorkerID)
    case startFailed(WorkerID)
    case crash(WorkerID)
    case exit(WorkerID)
    case wake
    case policy
    /// The node lets a worker start.
    case granted(WorkerID)
    /// The node wants memory back.
    case reclaim
    case yield
    /// The wall clock is set, or the machine was suspended.
    case clockStep
  }

  struct Process {
    var isReady = false
    var isStopping = false
    /// Told to make room: it finishes what it has.
    var isDraining = false
    /// In the order they came; a worker that answers in order is at the first.
    var running: [InvocationID] = []
  }

  private var random: SeededGenerator
  private var schedule: FunctionSchedule
  private var policy = FunctionPolicy()
  private var now = HearthInstant(nanoseconds: 0)
  private var agenda = Agenda<Event>()
  private var processes: [WorkerID: Process] = [:]
  private var waiting: Set<InvocationID> = []
  private var ended: Set<InvocationID> = []
  private var arrived = 0
  private let failureRate: Double
  private let crashRate: Double
  private let load: Int64
  /// Whether workers answer in order and requests are so short that some are sent ahead.
  private let pipelines: Bool
  private var alarm: HearthInstant?
  private(set) var problems: [String] = []
  private(set) var sentAhead = 0
  private(set) var givenBack = 0
  private(set) var hurried = 0
  /// The kinds of decisions that occurred.
  private(set) var reasons: Set<String> = []
  /// Plants a fault: every third end of a request is not reported to the schedule.
  var faultyEveryThirdEnd = false

  init(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    policy.workersMax = Int.random(in: 1...8, using: &random)
    policy.workersMin = random.chance(0.3) ? Int.random(in: 0...policy.workersMax, using: &random) : 0
    policy.bufferWorkers = random.chance(0.3) ? Int.random(in: 0...2, using: &random) : 0
    policy.concurrencyMax = random.chance(0.4) ? Int.random(in: 2...4, using: &random) : 1
    policy.queueLengthMax = Int.random(in: 0...40, using: &random)
    policy.keepAlive = [
      .fixed(.milliseconds(Int.random(in: 0...5_000, using: &random))), .adaptive, .cost, .learned, .forever,
    ].randomElement(using: &random)!
    policy.coldStartCost = .milliseconds(Int.random(in: 1...5_000, using: &random))
    policy.tick = .milliseconds(Int.random(in: 10...500, using: &random))
    policy.panicWindow = policy.tick * Int.random(in: 1...5, using: &random)
    policy.window = policy.panicWindow * Int.random(in: 1...10, using: &random)
    policy.panicThreshold = Double.random(in: 1...3, using: &random)
    policy.upscaleStabilization = .milliseconds(random.chance(0.3) ? Int.random(in: 0...2_000, using: &random) : 0)
    policy.downscaleStabilization = .milliseconds(Int.random(in: 0...2_000, using: &random))
    policy.upscaleFactorMax = Double.random(in: 1.1...4, using: &random)
    policy.downscaleFactorMax = Double.random(in: 0...0.9, using: &random)
    policy.activationScale = Int.random(in: 1...3, using: &random)
    policy.targetInFlight = random.chance(0.5) ? Double.random(in: 0.3...1, using: &random) : nil
    if random.chance(0.2) {
      policy.warmWindows = [WarmWindow("*/2 * * * * for 1m workers 2")!]
    }
    policy.coldStartTimeout = .milliseconds(Int.random(in: 200...20_000, using: &random))
    policy.loadStallTimeout = .milliseconds(Int.random(in: 100...3_000, using: &random))
    policy.drainTimeout = .milliseconds(Int.random(in: 10...3_000, using: &random))
    failureRate = random.chance(0.4) ? 0.3 : 0
    crashRate = random.chance(0.4) ? 0.05 : 0
    load = Int64.random(in: 1...400, using: &random)
    pipelines = policy.concurrencyMax == 1 && random.chance(0.6)
    schedule = FunctionSchedule(
      policy: policy, startMode: random.chance(0.5) ? .fork : .spawn, pipelines: pipelines)
    self.random = random
  }

  /// Runs that many events of traffic, then lets everything come to rest. Returns how many events there were.
  mutating func run(events: Int) -> Int {
    take(schedule.activated(workers: 0, now: now))
    add(.arrival, in: 0)
    var count = 0
    while count < events, step() { count += 1 }
    return count + comeToRest()
  }

  private mutating func comeToRest() -> Int {
    agenda.removeAll { if case .arrival = $0 { true } else { false } }
    var idle = policy
    idle.workersMin = 0
    idle.warmWindows = []
    // What learns or never ends a worker may keep one for as long as it likes.
    if !random.chance(0.5) || policy.keepAlive == .forever { idle.keepAlive = .fixed(.seconds(1)) }
    policy = idle
    take(schedule.policyChanged(idle, now: now))
    var count = 0
    // A failed load is remembered for fifteen minutes; an hour is long enough for anything.
    let end = now.advanced(by: .seconds(3_600))
    while count < 100_000, let next = agenda.next, next <= end, step() { count += 1 }
    if !faultyEveryThirdEnd {
      check(waiting.isEmpty, "\(waiting.count) requests still wait at rest")
      check(processes.values.allSatisfy(\.running.isEmpty), "requests still run at rest")
      check(ended.count == arrived, "\(arrived) requests arrived and \(ended.count) ended")
    }
    check(schedule.queueLength == 0, "the queue is not empty at rest")
    check(schedule.invocationsInFlight == 0, "\(schedule.invocationsInFlight) requests in flight at rest")
    check(
      processes.isEmpty,
      "\(processes.count) workers left: an idle function with min-workers 0 must reach zero "
        + "(\(schedule.workerSnapshots(now: now)), \(policy.keepAlive), \(schedule.idleTimes.current))")
    return count
  }

  private mutating func step() -> Bool {
    guard let entry = agenda.popNext() else { return false }
    now = max(now, entry.at)
    perform(entry.event)
    checkBounds()
    return true
  }

  private mutating func perform(_ event: Event) {
    switch event {
    case .arrival: arrive()
    case .finish(let id, let worker): finish(id, worker)
    case .abandon(let id):
      guard waiting.remove(id) != nil else { return }
      end(id)
      take(schedule.invocationAbandoned(id, now: now))
    case .returned(let id, let worker):
      guard remove(id, from: worker) else { return }
      waiting.insert(id)
      take(schedule.invocationReturned(id, from: worker, now: now))
      crash(worker)
    case .recall(let id, let worker):
      guard let running = processes[worker]?.running, running.contains(id), running.first != id else { return }
      _ = remove(id, from: worker)
      givenBack += 1
      waiting.insert(id)
      take(schedule.invocationWithdrawn(id, from: worker, now: now))
    case .unreachable(let id, let worker):
      waiting.insert(id)
      take(schedule.invocationReturned(id, from: worker, now: now))
    case .ready(let worker):
      guard processes[worker]?.isStopping == false, processes[worker]?.isReady == false else { return }
      processes[worker]!.isReady = true
      take(schedule.workerBecameReady(worker, now: now))
    case .startFailed(let worker):
      guard processes[worker]?.isReady == false else { return }
      processes[worker] = nil
      take(schedule.workerFailedToStart(worker, reason: "simulated", now: now))
    case .crash(let worker): crash(worker)
    case .exit(let worker):
      guard let process = processes[worker] else { return }
      if process.isReady || process.isStopping { crash(worker) } else { perform(.startFailed(worker)) }
    case .wake:
      guard let instant = alarm, instant <= now else { return }
      alarm = nil
      take(schedule.timeReached(now: now))
    case .granted(let worker):
      guard processes[worker]?.isStopping == false else { return }
      take(schedule.workerStartBegan(worker, now: now))
      load(worker)
    case .reclaim:
      guard let victim = schedule.reclaimable(now: now).candidates.first else { return }
      take(schedule.workerReclaimed(victim.id, now: now))
    case .yield:
      guard case .yielded(let worker, let actions) = schedule.workerYielded(now: now) else { return }
      processes[worker]?.isDraining = true
      take(actions)
      check(schedule.poolSize >= policy.workersMin, "a worker yields below min-workers")
    case .clockStep:
      if random.chance(0.5) { now = now.advanced(by: .seconds(Int.random(in: 1...600, using: &random))) }
      schedule.wallClockRead(offset: .seconds(Int.random(in: -100_000...2_000_000_000, using: &random)))
    case .policy:
      policy.workersMax = Int.random(in: max(1, policy.workersMin)...8, using: &random)
      take(schedule.policyChanged(policy, now: now))
    }
  }

  private mutating func arrive() {
    arrived += 1
    let id = InvocationID(UInt64(arrived))
    waiting.insert(id)
    if random.chance(0.05) { add(.abandon(id), in: Int64.random(in: 0...300, using: &random)) }
    if random.chance(0.01) { add(.policy, in: 0) }
    if random.chance(0.01) { add(.reclaim, in: Int64.random(in: 0...300, using: &random)) }
    if random.chance(0.005) { add(.yield, in: Int64.random(in: 0...300, using: &random)) }
    if random.chance(0.002) { add(.clockStep, in: Int64.random(in: 0...300, using: &random)) }
    let burst = random.chance(0.1)
    let pause = random.chance(0.003) ? Int64.random(in: 0...1_200_000, using: &random) : 0
    add(.arrival, in: burst ? 0 : pause + Int64.random(in: 0...(pipelines ? 1 : 2 * load), using: &random))
    take(schedule.invocationArrived(id, lane: random.chance(0.2) ? 1 : 0, now: now))
  }

  private mutating func finish(_ id: InvocationID, _ worker: WorkerID) {
    guard remove(id, from: worker) else { return }
    end(id)
    if faultyEveryThirdEnd, id.rawValue % 3 == 0 { return }
    take(schedule.invocationFinished(id, on: worker, now: now))
  }

  /// A worker is done with a request, and goes on with the next if it answers in order.
  private mutating func remove(_ id: InvocationID, from worker: WorkerID) -> Bool {
    guard let index = processes[worker]?.running.firstIndex(of: id) else { return false }
    processes[worker]!.running.remove(at: index)
    if pipelines, index == 0, let next = processes[worker]!.running.first { work(on: next, worker) }
    return true
  }

  /// A process ends: what ran on it is reported before or after its end, as connections and zygotes race.
  private mutating func crash(_ worker: WorkerID) {
    guard let process = processes.removeValue(forKey: worker) else { return }
    let exitFirst = random.chance(0.5)
    if exitFirst { take(schedule.workerExited(worker, now: now)) }
    for (index, id) in process.running.enumerated() {
      if pipelines && index > 0 {
        waiting.insert(id)
        take(schedule.invocationWithdrawn(id, from: worker, now: now))
      } else {
        end(id)
        let isLost = random.chance(0.5)
        take(schedule.invocationFinished(id, on: worker, isWorkerLost: isLost, now: now))
      }
    }
    if !exitFirst { take(schedule.workerExited(worker, now: now)) }
  }

  private mutating func take(_ actions: [FunctionSchedule.Action]) {
    for action in actions {
      switch action {
      case .run(let id, let worker, _): run(id, worker)
      case .sendAhead(let id, let worker): sendAhead(id, worker)
      case .hurryWorker(let worker):
        check(processes[worker]?.isReady == false, "\(worker) is hurried but not starting")
        hurried += 1
      case .recall(let id, let worker): add(.recall(id, worker), in: Int64.random(in: 0...3, using: &random))
      case .reject(let id, _):
        check(waiting.remove(id) != nil, "\(id) is refused but did not wait")
        end(id)
      case .startWorker(let worker, let reason):
        reasons.insert(kind(reason))
        start(worker)
      case .stopWorker(let worker, let reason):
        reasons.insert(kind(reason))
        checkStop(reason)
        // A worker that has died may be stopped before the schedule hears of its end.
        check(processes[worker]?.running.isEmpty ?? true, "\(worker) is stopped but serves requests")
        processes[worker]?.isStopping = true
        add(.exit(worker), in: Int64.random(in: 0...50, using: &random))
      case .killWorker(let worker, let reason):
        reasons.insert(kind(reason))
        if processes[worker]?.running.isEmpty == false {
          check(reason == .drainTimeout, "\(worker) is killed for \(reason) but serves requests")
        }
        if reason != .stalled { processes[worker]?.isStopping = true }
        add(.exit(worker), in: Int64.random(in: 0...5, using: &random))
      case .wake(let instant):
        // One alarm, as the shell has: an earlier one takes its place.
        if let alarm, alarm <= instant { continue }
        alarm = max(now, instant)
        add(.wake, at: max(now, instant))
      }
    }
  }

  private func kind(_ reason: some Any) -> String {
    String("\(reason)".prefix { $0 != "(" })
  }

  /// What has no request any more may stop, but not in a panic and not below what the policy keeps.
  private mutating func checkStop(_ reason: FunctionSchedule.StopReason) {
    switch reason {
    case .idle, .traffic, .unexpected:
      check(!schedule.scaler.isPanicking(now: now), "a worker stops for \(reason) in a panic")
      check(schedule.poolSize >= policy.workersMin, "a worker stops for \(reason) below min-workers")
    case .reclaimed:
      check(schedule.poolSize >= policy.workersMin, "a worker stops for \(reason) below min-workers")
    case .yielded, .surplus, .retired, .drainTimeout, .stalled, .notNeeded, .noRoom: break
    }
    // A worker that had to finish first was noted when that was decided.
    let isNoted = schedule.decisions.last.map { $0.lastAt == now } ?? false
    check(isNoted || reason == .yielded, "no reason is kept for a stop")
  }

  private mutating func run(_ id: InvocationID, _ worker: WorkerID) {
    check(waiting.remove(id) != nil, "\(id) runs but did not wait")
    guard let process = processes[worker] else {
      // A crash that the schedule has not heard of yet; the shell finds the connection dead.
      return add(.unreachable(id, worker), in: 0)
    }
    check(process.isReady && !process.isStopping && !process.isDraining, "\(id) runs on \(worker), which is not ready")
    check(process.running.count < policy.concurrencyMax, "\(worker) has more requests than max-concurrency")
    processes[worker]!.running.append(id)
    work(on: id, worker)
  }

  private mutating func sendAhead(_ id: InvocationID, _ worker: WorkerID) {
    sentAhead += 1
    check(pipelines, "\(id) is sent ahead to a worker that does not answer in order")
    check(waiting.remove(id) != nil, "\(id) is sent ahead but did not wait")
    guard let process = processes[worker] else { return add(.unreachable(id, worker), in: 0) }
    check(
      process.isReady && !process.isStopping && !process.isDraining,
      "\(id) is sent ahead to \(worker), which is not ready")
    check(process.running.count <= 8, "\(worker) has too many requests ahead")
    processes[worker]!.running.append(id)
    if process.running.isEmpty { work(on: id, worker) }
  }

  /// The worker begins a request.
  private mutating func work(on id: InvocationID, _ worker: WorkerID) {
    if random.chance(crashRate) { return add(.crash(worker), in: Int64.random(in: 0...100, using: &random)) }
    if random.chance(crashRate) { return add(.returned(id, worker), in: 0) }
    let isShort = pipelines && !random.chance(0.02)
    let microseconds =
      isShort ? Int64.random(in: 0...400, using: &random) : Int64.random(in: 0...200_000, using: &random)
    add(.finish(id, worker), at: now.advanced(by: .microseconds(microseconds)))
  }

  private mutating func start(_ worker: WorkerID) {
    check(processes[worker] == nil, "\(worker) is started twice")
    check(schedule.decisions.last.map { $0.lastAt == now || $0.at == now } == true, "no reason is kept for a start")
    processes[worker] = Process()
    add(.granted(worker), in: random.chance(0.8) ? 0 : Int64.random(in: 0...5_000, using: &random))
  }

  private mutating func load(_ worker: WorkerID) {
    let duration = Int64.random(in: 0...600, using: &random)
    if random.chance(failureRate) { return add(.startFailed(worker), in: duration) }
    // Some loads never end by themselves: the stall limit must.
    if !random.chance(0.02) { add(.ready(worker), in: duration) }
  }

  private mutating func end(_ id: InvocationID) {
    check(ended.insert(id).inserted, "\(id) ended twice")
  }

  private mutating func checkBounds() {
    let starting = processes.values.count { !$0.isReady && !$0.isStopping }
    let ready = processes.values.count { $0.isReady && !$0.isStopping && !$0.isDraining }
    // A lowered max-workers lets busy ones finish, so the pool may be above it, but must not grow then.
    check(starting == 0 || starting + ready <= 8, "the pool exceeds every max-workers there was")
    check(
      schedule.queueLength <= max(1, policy.queueLengthMax) + processes.count * policy.concurrencyMax
        + (pipelines ? 9 * processes.count : 0) + 9,
      "the queue is too long")
  }

  private mutating func add(_ event: Event, in milliseconds: Int64) {
    add(event, at: now.advanced(by: .milliseconds(milliseconds)))
  }

  private mutating func add(_ event: Event, at instant: HearthInstant) { agenda.add(event, at: instant) }

  private mutating func check(_ holds: Bool, _ problem: String) {
    if !holds, problems.count < 10 { problems.append(problem) }
  }
}
