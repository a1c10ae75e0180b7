import HearthCore
import HearthScheduler
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// The shell around `NodeSchedule`: endpoints ask here before they start a worker, and are told when they may, or that
/// they are to make room.
final class WorkerNode: Sendable {
  /// 15 s: how often the memory of all workers is measured, on a thread of its own.
  private static let measureInterval = TimeAmount.seconds(15)

  private struct State {
    var schedule: NodeSchedule
    var owners: [WorkerID: FunctionEndpoint] = [:]
    var alarm = Alarm()
    var isMeasuring = false
  }

  private let clock: any HearthClock
  private let timers: any EventLoop
  private let logger: Logger
  private let state: NIOLockedValueBox<State>

  init(memory: ByteSize, startsMax: Int, clock: any HearthClock, timers: any EventLoop, logger: Logger) {
    self.clock = clock
    self.timers = timers
    self.logger = logger
    state = NIOLockedValueBox(State(schedule: NodeSchedule(memory: memory.bytes, startsMax: startsMax)))
    timers.scheduleRepeatedTask(initialDelay: WorkerNode.measureInterval, delay: WorkerNode.measureInterval) {
      [weak self] task in
      guard let self else { return task.cancel() }
      measure()
    }
  }

  /// An endpoint wants to start a worker. `startGranted` or `startRefused` follows, now or later.
  func ask(_ id: WorkerID, for endpoint: FunctionEndpoint, _ urgency: NodeSchedule.Urgency) {
    let version = endpoint.version
    decide { state, now in
      state.owners[id] = endpoint
      return state.schedule.startAsked(
        id, of: version.name, version: endpoint.number, declared: version.spec.resources.memory?.bytes, urgency,
        now: now)
    }
  }

  /// A request waits for a worker that was asked for without one.
  func hurry(_ id: WorkerID) {
    decide { $0.schedule.startBecameUrgent(id, now: $1) }
  }

  /// Another version of a function serves now, or none.
  func versionTookOver(_ function: FunctionName, version: Int?) {
    state.withLockedValue { $0.schedule.versionTookOver(function, version: version) }
  }

  func becameReady(_ id: WorkerID) {
    decide { $0.schedule.workerBecameReady(id, now: $1) }
  }

  /// A worker is gone, or is not to be started any more.
  func ended(_ id: WorkerID) {
    decide { state, now in
      state.owners[id] = nil
      return state.schedule.workerEnded(id, now: now)
    }
  }

  /// A worker's memory was measured.
  func measured(_ id: WorkerID, _ bytes: Int64) {
    decide { $0.schedule.workerMeasured(id, bytes: bytes, now: $1) }
  }

  /// What a worker takes, as measured or expected.
  func memory(of id: WorkerID) -> ByteSize { state.withLockedValue { ByteSize(bytes: $0.schedule.bytes(of: id)) } }

  private func decide(_ fact: (inout State, HearthInstant) -> [NodeSchedule.Action]) {
    for action in state.withLockedValue({ fact(&$0, clock.now) }) { perform(action) }
  }

  private func perform(_ action: NodeSchedule.Action) {
    switch action {
    case .grant(let id): owner(of: id)?.startGranted(id)
    case .refuse(let id, let bytes):
      let budget = state.withLockedValue { ByteSize(bytes: $0.schedule.memory).rounded }
      owner(of: id)?.startRefused(
        id, "a worker takes \(ByteSize(bytes: bytes).rounded), and workers-memory is \(budget)")
    case .reclaim(let id):
      guard let asker = owner(of: id) else { return }
      reclaim(state.withLockedValue { $0.schedule.missing(for: id) }, for: asker)
    case .reclaimExcess(let bytes): reclaim(bytes, for: nil)
    case .yield(let names, let id): yield(names, for: id)
    case .wake(let instant):
      state.withLockedValue { $0.alarm.set(instant, now: clock.now, on: timers) { [self] in alarmRang() } }
    }
  }

  private func owner(of id: WorkerID) -> FunctionEndpoint? { state.withLockedValue { $0.owners[id] } }

  private var endpoints: [FunctionEndpoint] {
    let owners = state.withLockedValue { Array($0.owners.values) }
    var seen: Set<ObjectIdentifier> = []
    return owners.filter { seen.insert(ObjectIdentifier($0)).inserted }
  }

  private func reclaim(_ bytes: Int64, for asker: FunctionEndpoint?) {
    guard bytes > 0 else { return }
    var owners: [WorkerID: FunctionEndpoint] = [:]
    var candidates: [NodeSchedule.Candidate] = []
    for endpoint in endpoints where endpoint !== asker {
      for (id, idle) in endpoint.reclaimable() {
        owners[id] = endpoint
        candidates.append(NodeSchedule.Candidate(id: id, idle: idle, bytes: memory(of: id).bytes))
      }
    }
    for id in NodeSchedule.victims(among: candidates, bytes: bytes, mustSuffice: asker != nil) {
      guard let endpoint = owners[id], endpoint.reclaim(id) else { continue }
      logger.debug("idle worker makes room", metadata: ["worker": "\(id)"])
      state.withLockedValue { $0.schedule.workerLeaves(id) }
    }
  }

  private func yield(_ names: [FunctionName], for asking: WorkerID) {
    guard let asker = owner(of: asking) else { return }
    let endpoints = endpoints
    for name in names {
      for endpoint in endpoints where endpoint.version.name == name && endpoint !== asker {
        guard let id = endpoint.yieldWorker(toSuccessor: name == asker.version.name) else { continue }
        logger.info("worker makes room for a function that waits", metadata: ["worker": "\(id)"])
        return state.withLockedValue { $0.schedule.workerLeaves(id) }
      }
    }
    decide { $0.schedule.roomDenied(for: asking, now: $1) }
  }

  private func alarmRang() {
    state.withLockedValue { $0.alarm.rang() }
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
      for endpoint in endpoints { endpoint.measureWorkers() }
      state.withLockedValue { $0.isMeasuring = false }
    }
  }
}
