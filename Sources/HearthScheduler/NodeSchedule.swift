import HearthCore

/// Every decision about one node's memory and starts: which of the workers that functions ask for may start now, and
/// when idle or even busy ones have to make room. A pure value like `FunctionSchedule`.
///
/// What holds after every fact:
/// - the bytes of granted workers are within the budget when they are granted;
/// - of the workers granted within the last `startTime`, at most `startsMax` are still starting;
/// - functions without a worker whose request has waited for `patience` get one in the order they asked, whatever
///   others ask for.
public struct NodeSchedule: Sendable {
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
    /// Stop idle workers, as `victims` chooses them, that hold what is `missing(for:)` this worker: none of its own
    /// version's.
    case reclaim(for: WorkerID)
    /// Workers take more than the budget: stop idle ones that hold this much, or as many as there are.
    case reclaimExcess(Int64)
    /// Let a worker of the first of these functions that has one to spare finish its requests and stop, to make room
    /// for this one. `roomDenied` is the answer if none has.
    case yield([FunctionName], for: WorkerID)
    /// Call `timeReached` at this instant.
    case wake(HearthInstant)
  }

  /// A worker that could be stopped, as its function sees it.
  public struct Candidate: Sendable {
    public let id: WorkerID
    public let idle: Duration
    public let bytes: Int64

    public init(id: WorkerID, idle: Duration, bytes: Int64) {
      self.id = id
      self.idle = idle
      self.bytes = bytes
    }
  }

  /// One version of a function: the one before may make room for the next.
  private struct Owner: Hashable {
    let function: FunctionName
    let version: Int
  }

  private struct Ask {
    let id: WorkerID
    let owner: Owner
    let declared: Int64?
    var urgency: Urgency
    var asked: HearthInstant
    /// Nobody could make room: until then it holds up no others.
    var hopelessUntil: HearthInstant?
  }

  private struct Grant {
    let owner: Owner
    var bytes: Int64
    let at: HearthInstant
    /// Whether it counts against `startsMax`.
    var isStarting = true
    /// Whether it was told to make room.
    var isLeaving = false
  }

  /// 256 MiB: a worker's memory until one of its function has been measured, where nothing is declared.
  public static let bytesUnknown: Int64 = 256 << 20
  /// 30 s: how long a function without a worker is passed over before its turn comes regardless, and before others must
  /// make room for it.
  public static let patience = Duration.seconds(30)
  /// 2 s: for how long a start counts. Later it mostly waits for a disk or a device, and must not keep others away.
  static let startTime = Duration.seconds(2)
  /// 16: for how many asks room is made at a time.
  static let roomsMax = 16
  /// 100 ms: how often busy workers are looked at again while something waits for memory.
  static let retry = Duration.milliseconds(100)

  public let memory: Int64
  public let startsMax: Int
  private var asks: [Ask] = []
  private var grants: [WorkerID: Grant] = [:]
  private var startingBy: [FunctionName: Int] = [:]
  private var grantedTo: [Owner: Int] = [:]
  /// The largest worker of each version that was measured.
  private var measured: [Owner: Int64] = [:]
  /// Asks that became urgent before they came.
  private var hurried: Set<WorkerID> = []
  public private(set) var granted: Int64 = 0
  public private(set) var startingCount = 0
  private var yielded: HearthInstant?
  private var nextWake: HearthInstant?

  /// - Parameters:
  ///   - memory: bytes that workers may use in all.
  ///   - startsMax: workers that may be starting at once.
  public init(memory: Int64, startsMax: Int) {
    self.memory = memory
    self.startsMax = startsMax
  }

  public var waitingCount: Int { asks.count }
  /// Workers starting and started.
  public var workerCount: Int { grants.count }

  /// What a worker takes: as declared, else as others of its version were measured, else a guess. What is not declared
  /// is never taken to be more than the budget, since that would keep the function from ever being measured again.
  private func expectedBytes(of ask: Ask) -> Int64 {
    ask.declared ?? min(measured[ask.owner] ?? NodeSchedule.bytesUnknown, memory)
  }

  public func bytes(of worker: WorkerID) -> Int64 { grants[worker]?.bytes ?? 0 }

  /// How many bytes an ask lacks, what is about to be free counted as free; 0 when it is not asked any more.
  public func missing(for id: WorkerID) -> Int64 {
    asks.first { $0.id == id }.map(missing) ?? 0
  }

  private func missing(for ask: Ask) -> Int64 { max(0, granted + expectedBytes(of: ask) - memory - leavingBytes) }

  // Facts.

  public mutating func startAsked(
    _ id: WorkerID, of function: FunctionName, version: Int = 0, declared bytes: Int64?, _ urgency: Urgency,
    now: HearthInstant
  ) -> [Action] {
    let urgency = hurried.remove(id) == nil ? urgency : .demand
    let owner = Owner(function: function, version: version)
    asks.append(Ask(id: id, owner: owner, declared: bytes, urgency: urgency, asked: now))
    return pump(now: now)
  }

  /// A request waits for a worker that was asked for without one.
  public mutating func startBecameUrgent(_ id: WorkerID, now: HearthInstant) -> [Action] {
    guard let index = asks.firstIndex(where: { $0.id == id }) else {
      // Said by one thread before another has asked, or after the grant.
      if grants[id] == nil { hurried.insert(id) }
      return []
    }
    asks[index].urgency = .demand
    asks[index].asked = now
    return pump(now: now)
  }

  /// No function could make room for an ask. It is tried again later, and lets others pass meanwhile.
  public mutating func roomDenied(for id: WorkerID, now: HearthInstant) -> [Action] {
    yielded = nil
    guard let index = asks.firstIndex(where: { $0.id == id }) else { return [] }
    asks[index].hopelessUntil = now.advanced(by: NodeSchedule.patience)
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
  public mutating func workerEnded(_ id: WorkerID, now: HearthInstant) -> [Action] {
    asks.removeAll { $0.id == id }
    hurried.remove(id)
    endStart(id)
    if let grant = grants.removeValue(forKey: id) {
      granted -= grant.bytes
      grantedTo[grant.owner]! -= 1
      if grantedTo[grant.owner] == 0 { grantedTo[grant.owner] = nil }
      if grant.isLeaving { yielded = nil }
    }
    return pump(now: now)
  }

  /// A worker's memory was measured. It counts from now on, for this one and for those to come.
  public mutating func workerMeasured(_ id: WorkerID, bytes: Int64, now: HearthInstant) -> [Action] {
    guard let grant = grants[id] else { return [] }
    measured[grant.owner] = max(bytes, measured[grant.owner] ?? 0)
    granted += bytes - grant.bytes
    grants[id]!.bytes = bytes
    let excess = granted - leavingBytes - memory
    return (excess > 0 ? [.reclaimExcess(excess)] : []) + pump(now: now)
  }

  /// A worker was told to make room.
  public mutating func workerLeaves(_ id: WorkerID) { grants[id]?.isLeaving = true }

  public mutating func timeReached(now: HearthInstant) -> [Action] {
    nextWake = nil
    return pump(now: now)
  }

  private mutating func endStart(_ id: WorkerID) {
    guard let grant = grants[id], grant.isStarting else { return }
    grants[id]!.isStarting = false
    startingCount -= 1
    startingBy[grant.owner.function]! -= 1
    if startingBy[grant.owner.function] == 0 { startingBy[grant.owner.function] = nil }
  }

  // Decisions.

  private var leavingBytes: Int64 { grants.values.reduce(0) { $0 + ($1.isLeaving ? $1.bytes : 0) } }

  /// Grants what may start, in order of turn, and asks for room for what may not.
  private mutating func pump(now: HearthInstant) -> [Action] {
    guard !asks.isEmpty else { return [] }
    expireStarts(now: now)
    var actions: [Action] = []
    var isBlocked = false
    var short = 0
    asks = asks.sorted { precedes($0, $1, now: now) }
    var index = 0
    while index < asks.count, !isBlocked {
      let ask = asks[index]
      let bytes = expectedBytes(of: ask)
      if bytes > memory {
        asks.remove(at: index)
        actions.append(.refuse(ask.id, bytes: bytes))
      } else if startingCount >= startsMax {
        let oldest = grants.values.lazy.filter(\.isStarting).map(\.at).min() ?? now
        wake(at: oldest.advanced(by: NodeSchedule.startTime), &actions)
        break
      } else if granted + bytes <= memory, ask.urgency != .spare || short == 0 {
        asks.remove(at: index)
        grant(ask, bytes, now: now)
        actions.append(.grant(ask.id))
        // One more start of this function changes whose turn it is.
        asks = asks.sorted { precedes($0, $1, now: now) }
        index = 0
      } else {
        // A small one may pass, until the large one has waited long enough.
        if ask.urgency != .spare {
          if short < NodeSchedule.roomsMax { actions += makeRoom(for: ask, now: now) }
          short += 1
          isBlocked = isDue(ask, now: now)
        }
        index += 1
      }
    }
    return actions
  }

  private mutating func grant(_ ask: Ask, _ bytes: Int64, now: HearthInstant) {
    grants[ask.id] = Grant(owner: ask.owner, bytes: bytes, at: now)
    granted += bytes
    startingCount += 1
    startingBy[ask.owner.function, default: 0] += 1
    grantedTo[ask.owner, default: 0] += 1
  }

  private func isDue(_ ask: Ask, now: HearthInstant) -> Bool {
    guard ask.urgency == .demand, ask.asked.duration(to: now) >= NodeSchedule.patience else { return false }
    if let until = ask.hopelessUntil, now < until { return false }
    return grantedTo[ask.owner] == nil
  }

  /// Whose turn is first: those that have waited too long in the order they came, then by urgency, then functions with
  /// the fewest starts under way, then in the order they came.
  private func precedes(_ left: Ask, _ right: Ask, now: HearthInstant) -> Bool {
    let (leftIsDue, rightIsDue) = (isDue(left, now: now), isDue(right, now: now))
    if leftIsDue != rightIsDue { return leftIsDue }
    if !leftIsDue {
      if left.urgency != right.urgency { return left.urgency < right.urgency }
      let (leftStarts, rightStarts) = (startingBy[left.owner.function] ?? 0, startingBy[right.owner.function] ?? 0)
      if leftStarts != rightStarts { return leftStarts < rightStarts }
    }
    return left.asked == right.asked ? left.id < right.id : left.asked < right.asked
  }

  /// Asks for idle workers to stop, and, for a request that has waited too long, for a busy one to finish and stop.
  private mutating func makeRoom(for ask: Ask, now: HearthInstant) -> [Action] {
    var actions: [Action] = []
    if missing(for: ask) > 0 {
      actions.append(.reclaim(for: ask.id))
      let mayYield = yielded.map { $0.duration(to: now) >= NodeSchedule.patience } ?? true
      if isDue(ask, now: now), mayYield {
        yielded = now
        actions.append(.yield(holders(for: ask), for: ask.id))
      }
    }
    wake(at: now.advanced(by: NodeSchedule.retry), &actions)
    return actions
  }

  private mutating func wake(at instant: HearthInstant, _ actions: inout [Action]) {
    if let nextWake, nextWake <= instant { return }
    nextWake = instant
    actions.append(.wake(instant))
  }

  private mutating func expireStarts(now: HearthInstant) {
    guard startingCount >= startsMax else { return }
    for (id, grant) in grants where grant.isStarting && grant.at.duration(to: now) >= NodeSchedule.startTime {
      endStart(id)
    }
  }

  /// Who could make room, those that hold most first; before them an earlier version of the same function.
  private func holders(for ask: Ask) -> [FunctionName] {
    var bytes: [FunctionName: Int64] = [:]
    for grant in grants.values where !grant.isStarting && !grant.isLeaving {
      if grant.owner != ask.owner { bytes[grant.owner.function, default: 0] += grant.bytes }
    }
    let own = bytes.removeValue(forKey: ask.owner.function) == nil ? [] : [ask.owner.function]
    return own + bytes.keys.sorted { (bytes[$0]!, $1) > (bytes[$1]!, $0) }
  }

  /// The workers to stop for this much memory: those idle for longest, as many as it takes.
  ///
  /// - Parameter mustSuffice: whether to stop none if all together do not suffice.
  public static func victims(among candidates: [Candidate], bytes: Int64, mustSuffice: Bool = true) -> [WorkerID] {
    var missing = bytes
    var chosen: [WorkerID] = []
    for candidate in candidates.sorted(by: { ($0.idle, $1.id) > ($1.idle, $0.id) }) {
      guard missing > 0 else { break }
      missing -= candidate.bytes
      chosen.append(candidate.id)
    }
    return mustSuffice && missing > 0 ? [] : chosen
  }
}
