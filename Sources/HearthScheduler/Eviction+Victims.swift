import HearthCore

/// Who makes room.
extension Eviction {
  /// A worker that could be stopped, as its function sees it.
  public struct Candidate: Hashable, Sendable {
    public var id: WorkerID
    public var idle: Duration
    public var bytes: Int64
    /// From when on it may be stopped: a load is not thrown away before it was of use.
    public var freeAt = HearthInstant(nanoseconds: 0)
    /// Those of lower priority make room before those of higher.
    public var priority = 0
    public var usage = Usage()
    /// How long its load takes.
    public var loadTime = Duration.seconds(1)

    public init(id: WorkerID, idle: Duration, bytes: Int64) {
      self.id = id
      self.idle = idle
      self.bytes = bytes
    }

    /// What was lost for each byte that its stop frees, in seconds; what was lost last for others comes on top of it at
    /// each request, so that those not asked for fall behind.
    var worth: Double {
      usage.clock.inflation + usage.count * max(loadTime.seconds, 1e-6) / Double(max(bytes, 1))
    }
  }

  /// What is lost when these make room, in seconds of loads to come: how often they are asked for and how long their
  /// loads take, or, by `lru`, how lately.
  func regret(_ victims: [Candidate], _ clock: CacheClock) -> Double {
    victims.reduce(0) { sum, victim in
      let load = max(victim.loadTime.seconds, 1e-6)
      switch self {
      case .gdsf: return sum + (isStale(victim, clock) ? 0 : victim.usage.count * load)
      case .lru: return sum + load / max(victim.idle.seconds, 1e-3)
      }
    }
  }

  /// 4: after so many turnovers without a request a count says nothing any more.
  private static let staleTurnovers = 4.0

  /// The workers to stop for this much memory, in order, as few as it takes.
  ///
  /// - Parameter mustSuffice: whether to stop none if all together do not suffice.
  func victims(
    among candidates: [Candidate], bytes: Int64, mustSuffice: Bool, _ clock: CacheClock
  ) -> [Candidate] {
    var missing = bytes
    var chosen: [Candidate] = []
    for candidate in candidates.sorted(by: { precedes($0, $1, clock) }) {
      guard missing > 0 else { break }
      missing -= candidate.bytes
      chosen.append(candidate)
    }
    if missing > 0 { return mustSuffice ? [] : chosen }
    // Some need not go after all, since a larger one chosen later suffices: the most valuable stay first.
    for candidate in chosen.reversed() where candidate.bytes <= -missing {
      missing += candidate.bytes
      chosen.removeAll { $0.id == candidate.id }
    }
    return chosen
  }

  /// Whether one makes room before another.
  private func precedes(_ left: Candidate, _ right: Candidate, _ clock: CacheClock) -> Bool {
    if left.priority != right.priority { return left.priority < right.priority }
    if self == .gdsf {
      let (leftIsStale, rightIsStale) = (isStale(left, clock), isStale(right, clock))
      if leftIsStale != rightIsStale { return leftIsStale }
      if !leftIsStale, left.worth != right.worth { return left.worth < right.worth }
    }
    return (left.idle, right.id) > (right.idle, left.id)
  }

  func isStale(_ candidate: Candidate, _ clock: CacheClock) -> Bool {
    clock.turnovers - candidate.usage.clock.turnovers >= Eviction.staleTurnovers
  }
}

/// How far a cache has come, which is its own measure of time: what was loaded and what was given up.
public struct CacheClock: Hashable, Sendable {
  /// What the most valuable victim so far was worth, in seconds a byte.
  public internal(set) var inflation = 0.0
  /// How often as many bytes were loaded as the cache holds.
  public internal(set) var turnovers = 0.0

  public init() {}

  /// For those who carry it between threads as two numbers.
  public init(inflation: Double, turnovers: Double) {
    self.inflation = inflation
    self.turnovers = turnovers
  }
}
