import HearthCore
import HearthTestSupport

@testable import HearthScheduler

/// Models that share one device in virtual time: clients, loads and processes do whatever the seed says, and the
/// schedules of the models and of the device decide as they do in a gateway.
struct SimulatedCache {
  enum Event {
    case arrival
    case abandon(InvocationID, Int)
    case finish(InvocationID, WorkerID)
    case loaded(WorkerID)
    case measured(WorkerID)
    case loadFailed(WorkerID, FunctionSchedule.StartFailure)
    case exit(WorkerID)
    case crash(WorkerID)
    case wake(Int)
    case wakeDevice
    /// What an ended process had kept is given back.
    case freed(Int64)
  }

  struct Model {
    var schedule: FunctionSchedule
    let owner: WorkerOwner
    /// What it takes in truth.
    let bytes: Int64
    /// What it is said to take; nil: nobody has said.
    let declared: Int64?
    let isPinned: Bool
    let load: Duration
    /// Whether it can be loaded at all.
    let isBroken: Bool
    var alarm: HearthInstant?
  }

  struct Process {
    let model: Int
    /// What it holds: as granted, then as measured.
    var bytes: Int64
    var isReady = false
    /// It was told to end, and holds its memory until it has.
    var isEnding = false
    /// It was told to make room, and finishes what it has first.
    var isDraining = false
    var running: [InvocationID] = []
  }

  private var random: SeededGenerator
  private(set) var device: DeviceSchedule
  private var models: [Model] = []
  private var processes: [WorkerID: Process] = [:]
  private var now = HearthInstant(nanoseconds: 0)
  private var agenda = Agenda<Event>()
  private var deviceAlarm: HearthInstant?
  private var waiting: [InvocationID: (since: HearthInstant, model: Int)] = [:]
  private var ended: Set<InvocationID> = []
  private var arrived = 0
  private let pause: Int64
  private let failureRate: Double
  private let crashRate: Double
  private let hangRate: Double
  private let keepRate: Double
  /// What ended processes have not given back yet.
  private var kept: Int64 = 0
  private(set) var problems: [String] = []
  private(set) var longestWait = Duration.zero
  private(set) var evictions = 0
  private(set) var yields = 0
  private(set) var ranOut = 0
  /// Plants a fault: an exit is reported to the device before the process has let go of its memory.
  var releasesEarly = false

  static let memory: Int64 = 1_000
  static let stride: UInt64 = 1_000_000

  init(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    device = DeviceSchedule(
      memory: SimulatedCache.memory, startsMax: Int.random(in: 1...3, using: &random), startTime: nil,
      eviction: random.chance(0.5) ? .lru : .gdsf)
    pause = Int64.random(in: 1...60, using: &random)
    failureRate = random.chance(0.4) ? 0.1 : 0
    crashRate = random.chance(0.4) ? 0.02 : 0
    hangRate = random.chance(0.4) ? 0.1 : 0
    keepRate = random.chance(0.3) ? 0.2 : 0
    var policy = FunctionPolicy()
    policy.keepModels()
    policy.modelWaitMax = .milliseconds(Int.random(in: 100...3_000, using: &random))
    policy.residencyMin = random.chance(0.3) ? .milliseconds(Int.random(in: 0...500, using: &random)) : nil
    policy.drainTimeout = .milliseconds(Int.random(in: 10...1_000, using: &random))
    for number in 0..<Int.random(in: 2...20, using: &random) {
      let isPinned = number < 2 && random.chance(0.3)
      var policy = policy
      policy.concurrencyMax = random.chance(0.3) ? 3 : 1
      if isPinned { policy.workersMin = 1 }
      let bytes = Int64.random(in: 20...(isPinned ? 100 : 400), using: &random)
      let isExact = isPinned || random.chance(0.5)
      models.append(
        Model(
          schedule: FunctionSchedule(
            policy: policy, startMode: .fork,
            numbers: WorkerNumbers(first: UInt64(number) * SimulatedCache.stride + 1, count: SimulatedCache.stride)),
          owner: WorkerOwner(function: try! FunctionName("models"), model: try! ModelName("m\(number)")), bytes: bytes,
          declared: isExact ? bytes : nil, isPinned: isPinned,
          load: .milliseconds(Int.random(in: 1...200, using: &random)), isBroken: !isPinned && random.chance(0.05)))
    }
    self.random = random
  }

  /// Runs that many events of traffic, then lets everything come to rest. Returns how many events there were.
  mutating func run(events: Int) -> Int {
    for model in models.indices where models[model].isPinned {
      take(models[model].schedule.activated(workers: 1, now: now), model)
    }
    add(.arrival, in: 0)
    var count = 0
    while count < events, step() { count += 1 }
    return count + comeToRest()
  }

  private mutating func comeToRest() -> Int {
    agenda.removeAll { if case .arrival = $0 { true } else { false } }
    var count = 0
    let end = now.advanced(by: .seconds(3_600))
    while !waiting.isEmpty || processes.values.contains(where: { !$0.running.isEmpty }), count < 200_000,
      let next = agenda.next, next <= end, step()
    { count += 1 }
    check(waiting.isEmpty, "\(waiting.count) requests still wait at rest")
    check(ended.count == arrived, "\(arrived) requests arrived and \(ended.count) ended")
    for model in models.indices { take(models[model].schedule.retired(now: now), model) }
    while !processes.isEmpty, count < 400_000, step() { count += 1 }
    check(processes.isEmpty, "\(processes.count) processes left")
    check(device.granted == 0, "\(device.granted) bytes are granted to nobody")
    check(device.workerCount == 0 && device.startingCount == 0, "workers are counted that are gone")
    check(device.waitingCount == 0, "\(device.waitingCount) asks are left")
    return count
  }

  private mutating func step() -> Bool {
    guard let entry = agenda.popNext() else { return false }
    now = max(now, entry.at)
    perform(entry.event)
    check(held == device.granted, "\(device.granted) bytes are granted, and processes hold \(held)")
    check(kept == device.overhead, "\(device.overhead) bytes are overhead, and \(kept) are not given back")
    return true
  }

  /// What processes hold, those that are on their way out as well.
  private var held: Int64 { processes.values.reduce(0) { $0 + $1.bytes } }

  private mutating func perform(_ event: Event) {
    switch event {
    case .arrival: arrive()
    case .abandon(let id, let model):
      guard waiting.removeValue(forKey: id) != nil else { return }
      end(id)
      take(models[model].schedule.invocationAbandoned(id, now: now), model)
    case .finish(let id, let worker):
      guard let index = processes[worker]?.running.firstIndex(of: id) else { return }
      let model = processes[worker]!.model
      processes[worker]!.running.remove(at: index)
      end(id)
      take(models[model].schedule.invocationFinished(id, on: worker, now: now), model)
      take(device.workerFellIdle(now: now))
    case .loaded(let worker):
      guard let process = processes[worker], !process.isEnding else { return }
      processes[worker]!.isReady = true
      take(models[process.model].schedule.workerBecameReady(worker, now: now), process.model)
      take(device.workerBecameReady(worker, now: now))
      add(.measured(worker), in: Int64.random(in: 0...50, using: &random))
    case .measured(let worker):
      guard let process = processes[worker] else { return }
      processes[worker]!.bytes = models[process.model].bytes
      take(device.workerMeasured(worker, bytes: models[process.model].bytes, now: now))
    case .loadFailed(let worker, let failure):
      guard let process = processes[worker], !process.isReady, !process.isEnding else { return }
      if failure == .ranOut {
        ranOut += 1
        device.workerRanOut(worker)
      }
      processes[worker] = nil
      let actions = models[process.model].schedule.workerFailedToStart(
        worker, failure, reason: "simulated", now: now)
      take(device.workerEnded(worker, now: now))
      take(actions, process.model)
    case .exit(let worker), .crash(let worker): exit(worker)
    case .wake(let model):
      guard let at = models[model].alarm, at <= now else { return }
      models[model].alarm = nil
      take(models[model].schedule.timeReached(now: now), model)
    case .wakeDevice:
      guard let at = deviceAlarm, at <= now else { return }
      deviceAlarm = nil
      take(device.timeReached(now: now))
    case .freed(let bytes):
      kept -= bytes
      take(device.overheadGrew(-bytes, now: now))
    }
  }

  private mutating func arrive() {
    arrived += 1
    let id = InvocationID(UInt64(arrived))
    // The first models are asked for most.
    let model = min(Int.random(in: models.indices, using: &random), Int.random(in: models.indices, using: &random))
    waiting[id] = (now, model)
    if random.chance(0.05) { add(.abandon(id, model), in: Int64.random(in: 0...500, using: &random)) }
    add(.arrival, in: random.chance(0.2) ? 0 : Int64.random(in: 0...2 * pause, using: &random))
    take(models[model].schedule.invocationArrived(id, cache: device.cache, now: now), model)
  }

  private mutating func exit(_ worker: WorkerID) {
    guard let process = processes[worker] else { return }
    let failed = !process.isReady && !process.isEnding
    processes[worker] = nil
    for id in process.running {
      end(id)
      take(
        models[process.model].schedule.invocationFinished(id, on: worker, isWorkerLost: true, now: now), process.model)
    }
    let actions =
      failed
      ? models[process.model].schedule.workerFailedToStart(worker, reason: "it died", now: now)
      : models[process.model].schedule.workerExited(worker, now: now)
    let left = random.chance(keepRate) ? Int64.random(in: 0...process.bytes, using: &random) : 0
    kept += left
    if left > 0 { add(.freed(left), in: Int64.random(in: 0...100, using: &random)) }
    take(device.workerEnded(worker, kept: left, now: now))
    take(actions, process.model)
  }

  private mutating func take(_ actions: [FunctionSchedule.Action], _ model: Int) {
    for action in actions {
      switch action {
      case .run(let id, let worker, _): run(id, worker)
      case .reject(let id, _):
        check(waiting.removeValue(forKey: id) != nil, "\(id) is refused but did not wait")
        end(id)
      case .startWorker(let worker, let reason):
        var demand = DeviceSchedule.Demand(
          declared: models[model].declared, predicted: Int64.random(in: 20...500, using: &random), reason.urgency)
        demand.patience = models[model].schedule.policy.modelWaitMax
        demand.priority = model % 2
        take(device.startAsked(worker, of: models[model].owner, demand, now: now))
      case .hurryWorker(let worker): take(device.startBecameUrgent(worker, now: now))
      case .stopWorker(let worker, let reason):
        check(processes[worker]?.running.isEmpty ?? true, "\(worker) is stopped but in use")
        check(processes[worker]?.isReady ?? true, "\(worker) is stopped while it loads")
        if reason == .reclaimed || reason == .yielded {
          check(!models[model].isPinned, "\(worker) is pinned and makes room")
        }
        stop(worker)
      case .killWorker(let worker, let reason):
        if processes[worker] == nil {
          // It was asked for and never began.
          take(models[model].schedule.workerExited(worker, now: now), model)
          take(device.workerEnded(worker, now: now))
          continue
        }
        check(
          processes[worker]!.running.isEmpty || reason == .drainTimeout, "\(worker) is killed for \(reason) but in use")
        stop(worker)
      case .wake(let instant):
        if let at = models[model].alarm, at <= instant { continue }
        models[model].alarm = max(now, instant)
        add(.wake(model), at: max(now, instant))
      case .sendAhead, .recall: preconditionFailure("simulated workers take nothing ahead")
      }
    }
  }

  private mutating func take(_ actions: [DeviceSchedule.Action]) {
    for action in actions {
      switch action {
      case .grant(let worker): grant(worker)
      case .refuse(let worker, _):
        let model = SimulatedCache.model(of: worker)
        take(models[model].schedule.workerFailedToStart(worker, .tooLarge, reason: "too large", now: now), model)
        take(device.workerEnded(worker, now: now))
      case .reclaim(let workers):
        for (index, worker) in workers.enumerated() {
          reclaim(device.missing(for: worker, after: workers[..<index]), for: SimulatedCache.model(of: worker))
        }
      case .dropSpares: preconditionFailure("there are no spares here")
      case .reclaimExcess(let bytes): reclaim(bytes, for: nil)
      case .yield(let owners, let worker): yield(owners, for: worker)
      case .wake(let instant):
        if let at = deviceAlarm, at <= instant { continue }
        deviceAlarm = max(now, instant)
        add(.wakeDevice, at: max(now, instant))
      }
    }
  }

  private mutating func grant(_ worker: WorkerID) {
    let model = SimulatedCache.model(of: worker)
    guard models[model].schedule.isAsked(worker) else {
      return take(device.workerEnded(worker, now: now))
    }
    check(processes[worker] == nil, "\(worker) is granted twice")
    check(!processes.values.contains { $0.model == model && !$0.isEnding && !$0.isDraining }, "a model is loaded twice")
    processes[worker] = Process(model: model, bytes: device.bytes(of: worker))
    check(held + kept <= SimulatedCache.memory, "\(held) bytes are held at once, and \(kept) not given back")
    take(models[model].schedule.workerStartBegan(worker, now: now), model)
    let granted = device.bytes(of: worker)
    if models[model].isBroken || random.chance(failureRate) {
      add(.loadFailed(worker, .failed), at: now.advanced(by: models[model].load))
    } else if granted < models[model].bytes, granted < SimulatedCache.memory, random.chance(0.3) {
      add(.loadFailed(worker, .ranOut), at: now.advanced(by: models[model].load))
    } else if random.chance(crashRate) {
      add(.crash(worker), in: Int64.random(in: 0...300, using: &random))
      add(.loaded(worker), at: now.advanced(by: models[model].load))
    } else {
      add(.loaded(worker), at: now.advanced(by: models[model].load))
    }
  }

  private mutating func run(_ id: InvocationID, _ worker: WorkerID) {
    guard let (since, model) = waiting.removeValue(forKey: id) else {
      return check(false, "\(id) runs but does not wait")
    }
    check(model == processes[worker]?.model, "\(id) runs on another model's worker")
    check(
      processes[worker]?.isReady == true && processes[worker]?.isEnding == false, "\(worker) is not ready for \(id)")
    longestWait = max(longestWait, since.duration(to: now))
    processes[worker]?.running.append(id)
    check(
      (processes[worker]?.running.count ?? 0) <= models[model].schedule.policy.concurrencyMax,
      "\(worker) has more requests than slots")
    if random.chance(crashRate) { return add(.crash(worker), in: Int64.random(in: 0...50, using: &random)) }
    add(.finish(id, worker), in: Int64.random(in: 0...60, using: &random))
  }

  /// Memory is free when the process is gone, which may take until it is killed.
  private mutating func stop(_ worker: WorkerID) {
    guard processes[worker]?.isEnding == false else { return }
    processes[worker]!.isEnding = true
    if releasesEarly { take(device.workerEnded(worker, now: now)) }
    add(.exit(worker), in: random.chance(hangRate) ? 1_000 : Int64.random(in: 0...20, using: &random))
  }

  private mutating func reclaim(_ bytes: Int64, for asker: Int?) {
    guard bytes > 0 else { return }
    var found = FunctionSchedule.Reclaimable()
    for model in models.indices where model != asker {
      var own = models[model].schedule.reclaimable(now: now)
      for index in own.candidates.indices { own.candidates[index].priority = model % 2 }
      found.add(own, bytes: device.bytes)
    }
    let chosen = device.victims(among: found, bytes: bytes, mustSuffice: asker != nil, now: now)
    for victim in chosen.victims {
      evictions += 1
      device.workerEvicted(victim)
      let model = SimulatedCache.model(of: victim.id)
      take(models[model].schedule.workerReclaimed(victim.id, now: now), model)
    }
    if let next = chosen.next { take(device.roomExpected(at: next)) }
  }

  private mutating func yield(_ owners: [WorkerOwner], for worker: WorkerID) {
    var next: HearthInstant?
    for owner in owners {
      let model = models.firstIndex { $0.owner == owner }!
      switch models[model].schedule.workerYielded(now: now) {
      case .none(let until): next = [next, until].compactMap(\.self).min()
      case .yielded(let victim, let actions):
        yields += 1
        processes[victim]?.isDraining = true
        device.workerYielded(victim)
        return take(actions, model)
      }
    }
    take(device.roomDenied(for: worker, until: next, now: now))
  }

  private static func model(of worker: WorkerID) -> Int { Int((worker.rawValue - 1) / stride) }

  private mutating func end(_ id: InvocationID) {
    check(ended.insert(id).inserted, "\(id) ended twice")
  }

  private mutating func add(_ event: Event, in milliseconds: Int64) {
    add(event, at: now.advanced(by: .milliseconds(milliseconds)))
  }

  private mutating func add(_ event: Event, at instant: HearthInstant) { agenda.add(event, at: instant) }

  private mutating func check(_ holds: Bool, _ problem: String) {
    if !holds, problems.count < 5 { problems.append("\(problem) at \(now.nanoseconds / 1_000_000) ms") }
  }
}
