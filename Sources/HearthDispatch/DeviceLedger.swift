import HearthCore
import HearthScheduler
import HearthWorker
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Synchronization

/// The shell around one `DeviceSchedule`: the memory of a device, or of the machine itself.
final class DeviceLedger: Sendable {
  /// 15 s: how often the memory of all workers is measured, on a thread of its own.
  private static let measureInterval = TimeAmount.seconds(15)

  /// 20 ms: how soon after its first request a worker is measured; those that come together are measured together.
  private static let firstMeasureDelay = TimeAmount.milliseconds(20)

  /// 100 ms: how soon a device is looked at again after a worker's end.
  private static let freeDelay = TimeAmount.milliseconds(100)

  struct State {
    var schedule: DeviceSchedule
    var owners: [WorkerID: FunctionEndpoint] = [:]
    /// Those of them whose workers start or run.
    var granted: [WorkerID: FunctionEndpoint] = [:]
    var alarm = Alarm()
    var isMeasuring = false
    /// Endpoints with a worker that has served its first request.
    var unmeasured: [FunctionEndpoint] = []
    var evictions = EvictionCounts()
    var unreturned: Unreturned?
  }

  /// Memory of a device that an ended worker had and that the driver has not shown to be free since.
  struct Unreturned {
    let worker: WorkerID
    let since: HearthInstant
    var bytes: Int64
  }

  /// How often workers made room for others, and how long they had been idle.
  struct EvictionCounts: Sendable {
    var idle = 0
    var inUse = 0
    var idleTime = Duration.zero
  }

  /// The device; nil of the machine's own memory.
  let device: Device?
  private let host: any WorkerHost
  let clock: any HearthClock
  private let timers: any EventLoop
  let logger: Logger
  let state: NIOLockedValueBox<State>
  /// Whether something waits for memory, for those who could make room: they ask without a lock.
  private let isShort = Atomic(false)
  /// Whether a look for room is on its way.
  private let isIdleNoted = Atomic(false)
  /// The cache's clock as each request notes it, in the bits of its two numbers.
  private let inflation = Atomic<UInt64>(0)
  private let turnovers = Atomic<UInt64>(0)

  /// - Parameters:
  ///   - schedule: the memory and starts that it begins with.
  ///   - device: whose memory it is; nil of the machine's own.
  init(
    _ schedule: DeviceSchedule, of device: Device? = nil, host: any WorkerHost, clock: any HearthClock,
    timers: any EventLoop, logger: Logger
  ) {
    self.device = device
    self.host = host
    self.clock = clock
    self.timers = timers
    self.logger = logger
    state = NIOLockedValueBox(State(schedule: schedule))
    if device == nil {
      host.whenOverheadChanges { [weak self] in
        self?.measureOverheadElsewhere()
      }
    }
    timers.scheduleRepeatedTask(initialDelay: DeviceLedger.measureInterval, delay: DeviceLedger.measureInterval) {
      [weak self] task in
      guard let self else { return task.cancel() }
      measure()
    }
  }

  /// An endpoint wants to start a worker. The node's `granted` or `refused` follows, now or later.
  func ask(_ id: WorkerID, for endpoint: FunctionEndpoint, _ demand: DeviceSchedule.Demand) {
    decide { state, now in
      state.owners[id] = endpoint
      return state.schedule.startAsked(id, of: endpoint.owner, demand, now: now)
    }
  }

  /// A request waits for a worker that was asked for without one.
  func hurry(_ id: WorkerID) {
    decide { $0.schedule.startBecameUrgent(id, now: $1) }
  }

  /// A model was taken away.
  func removed(_ owner: WorkerOwner) { state.withLockedValue { $0.schedule.ownerRemoved(owner) } }

  /// Another version of a function serves now, or none.
  func versionTookOver(_ function: FunctionName, version: Int?) {
    state.withLockedValue { $0.schedule.versionTookOver(function, version: version) }
  }

  func becameReady(_ id: WorkerID) {
    decide { $0.schedule.workerBecameReady(id, now: $1) }
  }

  /// A worker was told to end.
  func leaves(_ id: WorkerID) { state.withLockedValue { $0.schedule.workerLeaves(id) } }

  /// A worker is gone, or is not to be started any more.
  ///
  /// - Parameter kept: what of its memory is not free all the same.
  func ended(_ id: WorkerID, kept: ByteSize = .zero) {
    let used = device.flatMap(host.used)
    decide { state, now in
      state.owners[id] = nil
      state.granted[id] = nil
      if let used { state.schedule.noteUsed(used.bytes) }
      let (before, held) = (state.schedule.overhead, state.schedule.bytes(of: id))
      let actions = state.schedule.workerEnded(id, kept: kept.bytes, used: used?.bytes, now: now)
      let left = min(state.schedule.overhead - before, held)
      if used != nil, left > 0 { state.unreturned = Unreturned(worker: id, since: now, bytes: left) }
      return actions
    }
    // A device frees what a process had a moment after its end.
    if used != nil { timers.scheduleTask(in: DeviceLedger.freeDelay) { [self] in measureOverheadElsewhere() } }
  }

  /// On a thread that may block.
  private func measureOverheadElsewhere() {
    NIOThreadPool.singleton.submit { [self] _ in measureOverhead() }
  }

  /// What a worker is reserved or was measured to take.
  func bytes(of id: WorkerID) -> ByteSize { state.withLockedValue { ByteSize(bytes: $0.schedule.bytes(of: id)) } }

  /// A worker's load found less memory than it needed. Returns the reason with the numbers.
  func ranOut(_ id: WorkerID, _ reason: String) -> String {
    state.withLockedValue { state in
      let reserved = ByteSize(bytes: state.schedule.bytes(of: id)).rounded
      state.schedule.workerRanOut(id)
      let used = ByteSize(bytes: state.schedule.granted).rounded
      let budget = ByteSize(bytes: state.schedule.memory).rounded
      return "\(reason) (\(reserved) were reserved for it, \(used) of \(budget) are in use)"
    }
  }

  /// How far the cache has come.
  var cache: CacheClock {
    CacheClock(
      inflation: Double(bitPattern: inflation.load(ordering: .relaxed)),
      turnovers: Double(bitPattern: turnovers.load(ordering: .relaxed)))
  }

  /// A worker has finished a request: if something waits for memory and the worker is idle now, it may make room.
  func workerMayBeIdle() {
    guard isShort.load(ordering: .relaxed), !isIdleNoted.exchange(true, ordering: .relaxed) else { return }
    // To look for room takes longer than a request may wait for it: not on a client's loop.
    timers.execute { [self] in
      isIdleNoted.store(false, ordering: .relaxed)
      decide { $0.schedule.workerFellIdle(now: $1) }
    }
  }

  /// An endpoint's worker has served its first request: its memory can be measured.
  func measureSoon(_ endpoint: FunctionEndpoint) {
    let isFirst = state.withLockedValue { state in
      state.unmeasured.append(endpoint)
      return state.unmeasured.count == 1
    }
    guard isFirst else { return }
    timers.scheduleTask(in: DeviceLedger.firstMeasureDelay) { [self] in
      NIOThreadPool.singleton.submit { [self] _ in
        let endpoints = state.withLockedValue { state in
          defer { state.unmeasured = [] }
          return state.unmeasured
        }
        for endpoint in endpoints { endpoint.measureWorkers() }
      }
    }
  }

  /// What no worker is charged with counts as well: of the machine's memory what the host's own processes take, which
  /// is read from files; of a device all that is in use there beyond what its workers hold.
  func measureOverhead() {
    guard let device else {
      let overhead = host.overhead
      return decide {
        $0.schedule.overheadMeasured(
          overhead.zygotes.bytes, passing: overhead.shared.bytes, spares: overhead.spares.bytes, now: $1)
      }
    }
    guard let used = host.used(of: device) else { return }
    decide { state, now in
      let before = state.schedule.overhead
      let actions = state.schedule.usedMeasured(used.bytes, now: now)
      let returned = before - state.schedule.overhead
      if returned > 0, let left = state.unreturned {
        state.unreturned?.bytes -= returned
        if left.bytes <= returned { state.unreturned = nil }
      }
      return actions
    }
  }

  /// Processes that are shared have come to take more beside their models.
  func kept(_ bytes: ByteSize) { decide { $0.schedule.overheadGrew(bytes.bytes, now: $1) } }

  /// Bytes that are left when all who wait have got theirs.
  var unclaimed: Int64 { state.withLockedValue { $0.schedule.unclaimed } }

  /// The same, and those that there would be if all workers made room.
  var room: (unclaimed: Int64, most: Int64) {
    state.withLockedValue { ($0.schedule.unclaimed, $0.schedule.memory - $0.schedule.overhead) }
  }

  /// Whose workers wait for memory or for their turn.
  var waitingOwners: Set<WorkerOwner> { state.withLockedValue { $0.schedule.waitingOwners } }

  func isAsked(_ id: WorkerID) -> Bool { state.withLockedValue { $0.schedule.isAsked(id) } }

  /// How many workers of an owner are here or on their way.
  func count(of owner: WorkerOwner) -> Int { state.withLockedValue { $0.schedule.count(of: owner) } }

  /// A worker's memory was measured.
  func measured(_ id: WorkerID, _ bytes: ByteSize, peak: ByteSize, kept: ByteSize) {
    decide {
      $0.schedule.workerMeasured(id, bytes: bytes.bytes, peak: peak.bytes, kept: kept.bytes, now: $1)
    }
  }

  func decide(_ fact: (inout State, HearthInstant) -> [DeviceSchedule.Action]) {
    let actions = state.withLockedValue { state in
      defer {
        isShort.store(state.schedule.isShort, ordering: .relaxed)
        inflation.store(state.schedule.cache.inflation.bitPattern, ordering: .relaxed)
        turnovers.store(state.schedule.cache.turnovers.bitPattern, ordering: .relaxed)
      }
      return fact(&state, clock.now)
    }
    for action in actions { perform(action) }
  }

  private func perform(_ action: DeviceSchedule.Action) {
    switch action {
    case .grant(let id):
      let endpoint = state.withLockedValue { state in
        state.granted[id] = state.owners[id]
        return state.owners[id]
      }
      if let endpoint { endpoint.node.granted(id, for: endpoint, by: self) }
    case .refuse(let id, let bytes): owner(of: id)?.startRefused(id, refusal(bytes))
    case .reclaim(let ids): reclaim(for: ids)
    case .dropSpares: host.dropSpares()
    case .reclaimExcess(let bytes):
      var found = candidates()
      stop(bytes, of: &found, sparing: nil)
    case .yield(let owners, let id): yield(owners, for: id)
    case .wake(let instant):
      state.withLockedValue { $0.alarm.set(instant, now: clock.now, on: timers) { [self] in alarmRang() } }
    }
  }

  private func refusal(_ bytes: Int64) -> String {
    let (memory, overhead) = state.withLockedValue { ($0.schedule.memory, $0.schedule.overhead) }
    let name = device.map { "device-memory of \($0.name)" } ?? "workers-memory"
    let budget = "a worker takes \(ByteSize(bytes: bytes).rounded), and \(name) is \(ByteSize(bytes: memory).rounded)"
    guard overhead > 0 else { return budget }
    let whose = device == nil ? "the gateway's own processes take" : "others than its workers take"
    return "\(budget), of which \(whose) \(ByteSize(bytes: overhead).rounded)"
  }

  func owner(of id: WorkerID) -> FunctionEndpoint? { state.withLockedValue { $0.owners[id] } }

  private func alarmRang() {
    state.withLockedValue { $0.alarm.rang() }
    // Something may wait for what others give back.
    if device != nil, isShort.load(ordering: .relaxed) { measureOverhead() }
    decide { $0.schedule.timeReached(now: $1) }
  }

  private func measure() {
    let isFree = state.withLockedValue { state in
      defer { state.isMeasuring = true }
      return !state.isMeasuring
    }
    guard isFree else { return }
    let endpoints = endpoints
    NIOThreadPool.singleton.submit { [self] _ in
      if device == nil { for endpoint in endpoints { endpoint.measureWorkers() } }
      measureOverhead()
      state.withLockedValue { $0.isMeasuring = false }
    }
  }
}
