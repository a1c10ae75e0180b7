import DequeModule
import HearthCore

/// Every decision about one version of one function: which worker takes a request, which requests wait, when workers
/// start and stop. A pure value: facts and `now` go in, actions come out; see `FunctionSchedule+Facts.swift`.
///
/// What holds after every fact:
/// - a request is in exactly one place: in the queue, on one worker, or gone from here;
/// - a worker in flight is never stopped before its drain deadline;
/// - workers starting and ready never exceed `workersMax`;
/// - a queue that is not empty has a worker starting, a worker in flight, or a wake-up to try again.
public struct FunctionSchedule: Sendable {
  /// What the shell is to do, in order.
  public enum Action: Hashable, Sendable {
    /// Hand the invocation to the worker.
    case run(InvocationID, on: WorkerID, StartKind)
    /// Send the invocation to a worker that is about to become free, behind the one it has.
    case sendAhead(InvocationID, to: WorkerID)
    /// Ask the worker to give an invocation back that was sent ahead. It answers only if it has not begun it.
    case recall(InvocationID, from: WorkerID)
    /// Answer the invocation with an error.
    case reject(InvocationID, Rejection)
    /// Start a worker, as soon as its node lets it: `workerStartBegan` says when.
    case startWorker(WorkerID, StartReason)
    /// A request waits for a worker that was asked for without one: its start is urgent now.
    case hurryWorker(WorkerID)
    /// Ask an idle worker to end. It holds no request.
    case stopWorker(WorkerID, StopReason)
    /// End a worker at once, whatever it holds.
    case killWorker(WorkerID, StopReason)
    /// Call `timeReached` at this instant, or soon after.
    case wake(HearthInstant)
  }

  /// How the worker that serves a request came to be; sent as `Hearth-Start`.
  public enum StartKind: String, Hashable, Sendable {
    /// A worker stood ready with a free slot.
    case hot
    /// The request waited for a slot of a worker that others had started.
    case warm
    /// The request waited for a worker to be forked from its zygote.
    case zygote
    /// The request waited for a worker with an interpreter or program of its own.
    case cold
  }

  public enum StartReason: Hashable, Sendable {
    /// A request came and no worker ran.
    case activation
    /// The queue would outlast the start of another worker.
    case queue(length: Int)
    /// A deploy: `initial-workers` asks for it, or the version before had workers.
    case initial
    /// `min-workers` asks for it.
    case minimum
    /// `buffer-workers` asks for it.
    case buffer
    /// The requests in flight, as the windows average them, ask for so many workers.
    case traffic(wanted: Int, isPanic: Bool)
    /// A warm window is open.
    case warmWindow
    /// A request is expected, as the function's idle times tell.
    case prewarm

    /// How urgent the start is to the node.
    public var urgency: DeviceSchedule.Urgency {
      switch self {
      case .activation, .queue, .traffic, .initial: .demand
      case .minimum, .warmWindow: .policy
      case .buffer, .prewarm: .spare
      }
    }
  }

  public enum StopReason: Hashable, Sendable {
    /// Idle for longer than `keep-alive`.
    case idle(Duration)
    /// Idle, and the next request is not expected soon.
    case unexpected
    /// Idle, and for `downscale-stabilization` the traffic asked for fewer workers.
    case traffic(wanted: Int)
    /// Not started yet, and nobody waits for it any more.
    case notNeeded
    /// A deploy's worker that found no room on its node in time.
    case noRoom
    /// Idle, and its memory is needed for another function's worker.
    case reclaimed
    /// Another function has waited too long for memory: this worker finishes what it has.
    case yielded
    /// More workers than `max-workers` allows since the policy changed.
    case surplus
    /// Another version has taken over, or the function was deleted.
    case retired
    /// Requests in flight did not finish within `drain-timeout`.
    case drainTimeout
    /// The load made no progress for `load-stall-timeout`.
    case stalled

    /// Whether it stops for others, and not because nobody needs it.
    public var makesRoom: Bool { self == .reclaimed || self == .yielded }

    /// Whether nothing is wrong with a worker that is to end before it is ready: it may take its time.
    public var isPatient: Bool { self == .notNeeded || self == .noRoom || self == .retired }

    func isSameKind(as other: StopReason) -> Bool {
      switch (self, other) {
      case (.idle, .idle), (.traffic, .traffic): true
      default: self == other
      }
    }
  }

  public enum Rejection: Hashable, Sendable {
    case queueFull(length: Int, retryAfter: Duration)
    case coldStartTimeout(Duration)
    case loadFailed(reason: String, retryAfter: Duration)
    /// A worker does not fit, with the numbers.
    case memoryExhausted(reason: String)
    case retired
  }

  /// Why a worker did not become ready.
  public enum StartFailure: Hashable, Sendable {
    case failed
    /// Its load found less memory than it needed.
    case ranOut
    /// It is larger than the whole budget.
    case tooLarge
  }

  /// How a worker is started, decided by its function.
  public enum StartMode: Hashable, Sendable {
    case fork
    case spawn
  }

  struct Waiting: Sendable {
    let id: InvocationID
    let arrival: HearthInstant
    /// Whether all of its body is there, so that it cannot hold up those behind it.
    let isWhole: Bool
    /// Which connection to a worker it would take: requests of one lane share one.
    let lane: Int
    /// How often it came back from a worker that never got a byte of it.
    var returns = 0
  }

  struct Running: Sendable {
    let waiting: Waiting
    /// When the worker got it. One that was sent ahead begins when the one before it ends.
    let began: HearthInstant
    var isRecalled = false

    var id: InvocationID { waiting.id }
  }

  struct Worker: Sendable {
    enum State: Hashable, Sendable {
      /// Its node has not let it start yet.
      case asked(since: HearthInstant, StartReason)
      case starting(since: HearthInstant, progress: HearthInstant)
      case ready
      case draining(deadline: HearthInstant, StopReason)
      case stopping
      /// Its process has ended; what it had in flight is still to be reported.
      case gone

      var isDraining: Bool {
        if case .draining = self { true } else { false }
      }

      /// When the start of a worker that is not ready yet began, or was asked for; nil for others.
      var startBegan: HearthInstant? {
        switch self {
        case .asked(let since, _), .starting(let since, _): since
        case .ready, .draining, .stopping, .gone: nil
        }
      }
    }

    var state: State
    /// When it became ready.
    var readyAt = HearthInstant(nanoseconds: 0)
    /// Invocations on this worker: at most `concurrencyMax` and those sent ahead.
    var inFlight = InFlight()
    var idleSince: HearthInstant
    /// Whether its current request keeps it from taking others ahead: its client reads slowly, for one.
    var isHeldUp = false
    /// When it last finished one.
    var lastFinished = HearthInstant(nanoseconds: 0)
    /// Whether it has served a request yet: the first one was the reason for its start.
    var hasServed = false

    /// Gives it an invocation; returns how many it has now.
    mutating func take(_ running: Running) -> Int {
      inFlight.append(running)
      hasServed = true
      return inFlight.count
    }

    /// Takes an invocation away, which ended at `finished` unless that is nil. Nil when it has no such.
    mutating func give(_ id: InvocationID, finished: HearthInstant?) -> (
      running: Running, after: HearthInstant, left: Int
    )? {
      guard let running = inFlight.remove(id) else { return nil }
      let previous = lastFinished
      if let finished {
        lastFinished = finished
        isHeldUp = false
      }
      return (running, previous, inFlight.count)
    }
  }

  /// How many attempts a load gets before its failure is remembered.
  static let loadAttemptsMax = 3
  /// For how long a failed load is remembered: long enough not to burn a GPU on a broken model.
  static let loadFailureMemory = Duration.seconds(900)
  /// The pause after the first failed load; it doubles with each.
  static let loadBackoff = Duration.milliseconds(500)

  /// A worker that ends by itself within this time of being ready does not work, whatever it reported.
  static let shortLife = Duration.seconds(10)

  /// How often a request is given to another worker: by then the workers are at fault, not chance.
  static let returnsMax = 3

  /// The least a start is taken to last, so that no queue of a few milliseconds grows the pool.
  static let startTimeFloor = Duration.milliseconds(10)

  /// 1 ms: the work that is sent ahead of a worker. It hides the two process switches between one request and the next,
  /// some 50 µs, and is little enough not to matter if another worker falls idle.
  static let aheadTime = Duration.milliseconds(1)
  /// 8: by then a worker of the shortest functions is never without work.
  static let aheadMax = 8
  /// 10 ms: a request that was sent ahead and waits longer is behind one that takes unusually long.
  static let aheadPatience = Duration.milliseconds(10)
  /// 32: how many requests of other lanes may be passed over to find one that can be sent ahead.
  static let aheadSearchMax = 32

  public internal(set) var policy: FunctionPolicy
  public let startMode: StartMode
  /// Whether its workers take one request after another from a connection and answer them in order.
  public let pipelines: Bool
  public internal(set) var isRetired = false

  var workers: [WorkerID: Worker] = [:]
  /// Ready workers with a free slot; the last one is used first, so that the surplus falls idle.
  var available: [WorkerID] = []
  var queue: Deque<Waiting> = []
  private(set) var startingCount = 0
  private(set) var readyCount = 0
  var inFlightCount = 0
  /// Requests whose bodies are on their way.
  var announcedCount = 0
  public private(set) var numbers: WorkerNumbers
  /// Workers that were asked for and that no request waits for.
  var quietAsks: Set<WorkerID> = []

  /// Learned: how long a start takes, and how long a worker takes for a request.
  var startEstimate = Estimate()
  var serviceEstimate = Estimate()
  /// How many requests a worker is sent ahead of the one it has.
  var aheadDepth = 0
  var loadFailures = LoadFailures()
  /// Whether the last load found too little memory, and is tried once more.
  public internal(set) var hasRunOut = false
  public internal(set) var usage = Usage()

  /// How far the traffic's integral, and with it everything that follows from time, has come.
  var time = HearthInstant(nanoseconds: 0)
  var scaler = Scaler()
  /// When the next look at the pool is due; nil at rest.
  var nextTick: HearthInstant?
  /// Since when there has been no request; nil while there is one.
  var restBegan: HearthInstant?
  var idleTimes = IdleTimes()
  /// Unix time less `now`; nil until the shell has said it.
  var wallOffset: Duration?
  /// What open warm windows ask for, and until when that holds.
  var warm: (workers: Int, until: HearthInstant)?
  var log = DecisionLog()
  /// Requests sent ahead: those in flight beyond the slots of their workers.
  var aheadCount = 0
  var nextWake: HearthInstant?
  var actions: [Action] = []

  /// - Parameter numbers: what its workers are called. Numbers must not repeat within a gateway.
  public init(
    policy: FunctionPolicy, startMode: StartMode, pipelines: Bool = false,
    numbers: WorkerNumbers = WorkerNumbers(first: 1, count: .max / 2)
  ) {
    self.policy = policy
    self.startMode = startMode
    self.pipelines = pipelines
    self.numbers = numbers
  }

  public var queueLength: Int { queue.count }
  public var workerCount: Int { workers.values.count { $0.state != .gone } }
  public var invocationsInFlight: Int { inFlightCount }

  /// More numbers for workers, before those there are run out.
  public mutating func addNumbers(first: UInt64) { numbers.add(first: first) }

  mutating func nextWorker() -> WorkerID { WorkerID(numbers.take()) }

  /// Starting and ready workers: those that count against `workersMax`.
  var poolSize: Int { startingCount + readyCount }

  /// Moves a worker to another state, or in (from nil) or out (to nil), and keeps the counts true.
  mutating func transition(_ id: WorkerID, to state: Worker.State?, now: HearthInstant) {
    count(workers[id]?.state, by: -1)
    count(state, by: 1)
    if state != .ready { available.removeAll { $0 == id } }
    quietAsks.remove(id)
    guard let state else {
      workers[id] = nil
      return
    }
    if workers[id] == nil { workers[id] = Worker(state: state, idleSince: now) } else { workers[id]!.state = state }
  }

  private mutating func count(_ state: Worker.State?, by step: Int) {
    switch state {
    case .asked, .starting: startingCount += step
    case .ready: readyCount += step
    case .draining, .stopping, .gone, nil: break
    }
  }
}
