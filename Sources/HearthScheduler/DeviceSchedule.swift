import HearthCore

/// Every decision about one device's memory and starts, or about those of the machine itself: which of the workers that
/// functions ask for may start now, and when idle or even busy ones have to make room. A pure value like
/// `FunctionSchedule`.
///
/// What holds after every fact:
/// - the bytes of granted workers are within the budget when they are granted;
/// - of the workers granted within the last `startTime`, at most `startsMax` are still starting;
/// - functions without a worker whose request has waited for `patience` get one in the order they asked, whatever
///   others ask for.
public struct DeviceSchedule: Sendable {
  /// Why a worker is asked for, most urgent first.
  public enum Urgency: Int, Comparable, Sendable {
    /// A request waits.
    case demand
    /// The policy wants it: `min-workers`, a warm window.
    case policy
    /// It may be of use later: a prewarm, a buffer. Takes free memory only.
    case spare

    public static func < (left: Urgency, right: Urgency) -> Bool { left.rawValue < right.rawValue }
  }

  public enum Action: Hashable, Sendable {
    /// Start the worker now.
    case grant(WorkerID)
    /// The worker can never start: it is larger than the whole budget.
    case refuse(WorkerID, bytes: Int64)
    /// For each of these workers in turn stop idle ones, as `victims` chooses them, that hold what is `missing(for:)`
    /// it: none of its own version's or model's. `roomExpected` is the answer if some may not be stopped yet.
    case reclaim(for: [WorkerID])
    /// End the host's spare processes, and make none for a while: with them a worker would not fit at all.
    case dropSpares
    /// Workers take more than the budget: stop idle ones that hold this much, or as many as there are.
    case reclaimExcess(Int64)
    /// Let a worker of the first of these owners that has one to spare finish its requests and stop, to make room for
    /// this one. `roomDenied` is the answer if none has.
    case yield([WorkerOwner], for: WorkerID)
    /// Call `timeReached` at this instant.
    case wake(HearthInstant)
  }

  /// What a worker is asked for with.
  public struct Demand: Sendable {
    /// Its memory as its author declares it; nil: as others of its owner were measured, or else as predicted.
    public var declared: Int64?
    /// Its memory as the sizes of its files let expect; nil where there are none.
    public var predicted: Int64?
    /// What it takes at the very least, whatever was measured: the size of its files.
    public var least: Int64 = 0
    public var urgency = Urgency.demand
    /// How long it may be passed over before its turn comes regardless, and before those in use must make room.
    public var patience = DeviceSchedule.patience
    /// Of those in use, the ones of lowest priority make room first.
    public var priority = 0

    public init(declared: Int64? = nil, predicted: Int64? = nil, _ urgency: Urgency = .demand) {
      self.declared = declared
      self.predicted = predicted
      self.urgency = urgency
    }
  }

  struct Ask {
    let id: WorkerID
    let owner: WorkerOwner
    var demand: Demand
    var asked: HearthInstant
    /// Nobody could make room: until then it holds up no others.
    var hopelessUntil: HearthInstant?
  }

  struct Grant {
    let owner: WorkerOwner
    var bytes: Int64
    let priority: Int
    let at: HearthInstant
    /// Whether it counts against `startsMax`.
    var isStarting = true
    /// Whether it was told to make room.
    var isLeaving = false
  }

  /// 256 MiB: a worker's memory until one of its function has been measured, where nothing is declared.
  public static let bytesUnknown: Int64 = 256 << 20
  /// 16 MiB: the least by which the memory of one that had too little is raised.
  static let ranOutMin: Int64 = 16 << 20
  /// 30 s: how long a function or model without a worker is passed over before its turn comes regardless, and before
  /// others must make room for it.
  public static let patience = Duration.seconds(30)
  /// 2 s: for how long a start counts. Later it mostly waits for a disk, and must not keep others away.
  public static let startTime = Duration.seconds(2)
  /// 16: for how many asks room is made at a time.
  static let roomsMax = 16
  /// 100 ms: how often busy workers are looked at again while something waits for memory.
  static let retry = Duration.milliseconds(100)
  /// 1 s: how long something waits for memory before spare processes make room.
  static let sparePatience = Duration.seconds(1)
  /// 1 ms: how often workers that fall idle are looked at while something waits for memory.
  static let idleRetry = Duration.milliseconds(1)

  public let memory: Int64
  public let startsMax: Int
  /// For how long a start counts against `startsMax`; nil: until the worker is ready.
  let startTime: Duration?
  var asks: [Ask] = []
  var grants: [WorkerID: Grant] = [:]
  var startingBy: [WorkerOwner: Int] = [:]
  var grantedTo: [WorkerOwner: Int] = [:]
  /// The largest worker of each owner that was measured, or had too little.
  var measured: [WorkerOwner: Int64] = [:]
  /// Asks that became urgent before they came.
  private var hurried: Set<WorkerID> = []
  /// What the host's own processes take that no worker is charged with, spare ones left out, and what the spare take.
  public internal(set) var overhead: Int64 = 0
  public internal(set) var spares: Int64 = 0
  /// What of the overhead is there for good. A worker that does not fit beside it is refused at once; one that does not
  /// fit beside the rest when it has waited for its patience.
  var steady: Int64 = 0
  /// What of it is nothing of the host's, and may go any time.
  var foreign: Int64 = 0
  /// Bytes of workers that were told to make room.
  var leavingBytes: Int64 = 0
  public internal(set) var granted: Int64 = 0
  public internal(set) var startingCount = 0
  var yielded: HearthInstant?
  private var nextWake: HearthInstant?
  var lastLook = HearthInstant(nanoseconds: .min)
  public let eviction: Eviction
  public internal(set) var cache = CacheClock()
  /// Whether something that is wanted now waits for memory.
  public internal(set) var isShort = false

  /// - Parameters:
  ///   - memory: bytes that workers may use in all.
  ///   - startsMax: workers that may be starting at once.
  ///   - startTime: for how long a start counts against `startsMax`; nil: until the worker is ready.
  ///   - eviction: which idle workers make room.
  public init(
    memory: Int64, startsMax: Int, startTime: Duration? = DeviceSchedule.startTime, eviction: Eviction = .lru
  ) {
    self.eviction = eviction
    self.memory = memory
    self.startsMax = startsMax
    self.startTime = startTime
  }

  public func isAsked(_ id: WorkerID) -> Bool { asks.contains { $0.id == id } }
  public var waitingCount: Int { asks.count }
  public var waitingOwners: Set<WorkerOwner> { Set(asks.map(\.owner)) }
  /// Workers starting and started.
  public var workerCount: Int { grants.count }
  /// All bytes that are in use or promised.
  var used: Int64 { granted + overhead + spares }
  /// Bytes that are in use and not about to be free.
  var held: Int64 { used - leavingBytes }

  /// What a worker takes: as declared, else as others of its version were measured, else a guess. What is not declared
  /// is never taken to be more than there is beside the host's own processes, since that would keep the function from
  /// ever being measured again.
  func expectedBytes(of ask: Ask) -> Int64 {
    if let declared = ask.demand.declared { return max(declared, ask.demand.least) }
    let expected = measured[ask.owner] ?? ask.demand.predicted ?? DeviceSchedule.bytesUnknown
    return max(ask.demand.least, min(expected, max(0, memory - overhead + foreign)))
  }

  /// The most that a worker can ever have.
  var bytesMax: Int64 { memory - steady }

  public func bytes(of worker: WorkerID) -> Int64 { grants[worker]?.bytes ?? 0 }

  /// The same; nil of a worker that is not granted.
  public func grantedBytes(of worker: WorkerID) -> Int64? { grants[worker]?.bytes }

  /// How many workers of an owner are granted or asked for.
  public func count(of owner: WorkerOwner) -> Int {
    (grantedTo[owner] ?? 0) + asks.lazy.filter { $0.owner == owner }.count
  }

  /// How many bytes are left when all who wait have got theirs; negative where they cannot.
  public var unclaimed: Int64 { asks.reduce(memory - used) { $0 - expectedBytes(of: $1) } }

  /// How many bytes an ask lacks, what is about to be free counted as free; 0 when it is not asked any more.
  ///
  /// - Parameter earlier: asks that are to get theirs first.
  public func missing(for id: WorkerID, after earlier: some Collection<WorkerID> = []) -> Int64 {
    guard let ask = asks.first(where: { $0.id == id }) else { return 0 }
    let promised = asks.reduce(Int64(0)) { $0 + (earlier.contains($1.id) ? expectedBytes(of: $1) : 0) }
    return max(0, missing(for: ask) + promised)
  }

  func missing(for ask: Ask) -> Int64 { max(0, held + expectedBytes(of: ask) - memory) }

  // Facts.

  public mutating func startAsked(
    _ id: WorkerID, of owner: WorkerOwner, _ demand: Demand, now: HearthInstant
  ) -> [Action] {
    var demand = demand
    if hurried.remove(id) != nil { demand.urgency = .demand }
    asks.append(Ask(id: id, owner: owner, demand: demand, asked: now))
    return pump(now: now)
  }

  /// A request waits for a worker that was asked for without one.
  public mutating func startBecameUrgent(_ id: WorkerID, now: HearthInstant) -> [Action] {
    guard let index = asks.firstIndex(where: { $0.id == id }) else {
      // Said by one thread before another has asked, or after the grant.
      if grants[id] == nil { hurried.insert(id) }
      return []
    }
    asks[index].demand.urgency = .demand
    asks[index].asked = now
    return pump(now: now)
  }

  /// Nobody could make room for an ask. It is tried again later, and lets others pass meanwhile.
  ///
  /// - Parameter until: when somebody can; nil: when the ask's patience has passed once more.
  public mutating func roomDenied(for id: WorkerID, until: HearthInstant? = nil, now: HearthInstant) -> [Action] {
    yielded = nil
    guard let index = asks.firstIndex(where: { $0.id == id }) else { return [] }
    let patient = now.advanced(by: asks[index].demand.patience)
    asks[index].hopelessUntil = min(until ?? patient, patient)
    // Not looked at again at once: each look may be denied in its turn, for as many as wait.
    return roomExpected(at: min(asks[index].hopelessUntil!, now.advanced(by: DeviceSchedule.retry)))
  }

  /// Some idle workers keep their memory for a while yet: the next can be stopped at this instant.
  public mutating func roomExpected(at instant: HearthInstant) -> [Action] {
    var actions: [Action] = []
    wake(at: instant, &actions)
    return actions
  }

  /// A worker has nothing to do any more: it may make room.
  public mutating func workerFellIdle(now: HearthInstant) -> [Action] {
    guard isShort else { return [] }
    guard lastLook.advanced(by: DeviceSchedule.idleRetry) <= now else {
      return roomExpected(at: lastLook.advanced(by: DeviceSchedule.idleRetry))
    }
    return pump(now: now)
  }

  /// Another version of a function has taken over, or none: what workers of those before took says nothing any more.
  public mutating func versionTookOver(_ function: FunctionName, version: Int?) {
    measured = measured.filter { $0.key.function != function || $0.key.version == version }
  }

  /// A granted worker is ready: others may start.
  public mutating func workerBecameReady(_ id: WorkerID, now: HearthInstant) -> [Action] {
    endStart(id)
    return pump(now: now)
  }

  /// A worker is gone, failed to start, or is not asked for any more.
  ///
  /// - Parameters:
  ///   - kept: bytes that a process it shared has not given back, or more than its own if negative: they count as
  ///     overhead until that is measured.
  ///   - used: all that is in use of the device: only what is seen to be free is free.
  public mutating func workerEnded(
    _ id: WorkerID, kept: Int64 = 0, used: Int64? = nil, now: HearthInstant
  ) -> [Action] {
    overhead = max(0, overhead + kept)
    asks.removeAll { $0.id == id }
    hurried.remove(id)
    endStart(id)
    if let grant = grants.removeValue(forKey: id) {
      granted -= grant.bytes
      if grant.isLeaving { leavingBytes -= grant.bytes }
      grantedTo[grant.owner]! -= 1
      if grantedTo[grant.owner] == 0 { grantedTo[grant.owner] = nil }
      if grant.isLeaving { yielded = nil }
    }
    if let used { noteUsed(used) }
    return pump(now: now)
  }

  /// A model was taken away: what it took says nothing any more.
  public mutating func ownerRemoved(_ owner: WorkerOwner) { measured[owner] = nil }

  /// Whom to stop, and when to look again.
  public struct Victims: Sendable {
    public var victims: [Eviction.Candidate] = []
    public var next: HearthInstant?
  }

  /// The idle workers to stop for this much memory: as few as it takes. None, and when to look again, if one of them
  /// may not be stopped yet.
  ///
  /// - Parameter mustSuffice: whether to stop none if all together do not suffice.
  public func victims(
    among found: FunctionSchedule.Reclaimable, bytes: Int64, mustSuffice: Bool = true, now: HearthInstant
  ) -> Victims {
    let victims = eviction.victims(among: found.candidates, bytes: bytes, mustSuffice: mustSuffice, cache)
    guard !victims.isEmpty else { return Victims(next: found.next) }
    let free = victims.map(\.freeAt).max()!
    return free <= now ? Victims(victims: victims) : Victims(next: free)
  }

  /// What is lost when so many more bytes make room, in seconds of loads to come; infinite when they cannot.
  public func regret(of found: FunctionSchedule.Reclaimable, bytes: Int64) -> Double {
    let victims = eviction.victims(among: found.candidates, bytes: bytes, mustSuffice: true, cache)
    return victims.isEmpty && bytes > 0 ? .infinity : eviction.regret(victims, cache)
  }

  /// An idle worker was told to make room.
  public mutating func workerEvicted(_ victim: Eviction.Candidate) {
    workerLeaves(victim.id)
    if !eviction.isStale(victim, cache) { cache.inflation = max(cache.inflation, victim.worth) }
  }

  /// A worker in use was told to make room.
  public mutating func workerYielded(_ id: WorkerID) {
    if grants[id] == nil { yielded = nil } else { workerLeaves(id) }
  }

  /// A worker was told to end: its memory is about to be free.
  public mutating func workerLeaves(_ id: WorkerID) {
    guard let grant = grants[id], !grant.isLeaving else { return }
    grants[id]!.isLeaving = true
    leavingBytes += grant.bytes
  }

  public mutating func timeReached(now: HearthInstant) -> [Action] {
    nextWake = nil
    return pump(now: now)
  }

  mutating func endStart(_ id: WorkerID) {
    guard let grant = grants[id], grant.isStarting else { return }
    grants[id]!.isStarting = false
    startingCount -= 1
    startingBy[grant.owner]! -= 1
    if startingBy[grant.owner] == 0 { startingBy[grant.owner] = nil }
  }

  mutating func wake(at instant: HearthInstant, _ actions: inout [Action]) {
    if let nextWake, nextWake <= instant { return }
    nextWake = instant
    actions.append(.wake(instant))
  }
}
