import HearthCore

@testable import HearthScheduler

func instant(_ seconds: Double) -> HearthInstant { HearthInstant(nanoseconds: Int64((seconds * 1e9).rounded())) }

/// Drives one schedule by hand in virtual time: workers start in no time unless told otherwise, wake-ups come when asked
/// for, and requests last as long as the test says.
struct ScheduleProbe {
  var schedule: FunctionSchedule
  private(set) var now = instant(0)
  private(set) var started: [(at: HearthInstant, reason: FunctionSchedule.StartReason)] = []
  private(set) var stopped: [(at: HearthInstant, reason: FunctionSchedule.StopReason)] = []
  private(set) var rejected: [(id: InvocationID, reason: FunctionSchedule.Rejection)] = []
  private(set) var cold = 0
  private(set) var ready: Set<WorkerID> = []
  var startTime = Duration.zero
  private var wakeAt: HearthInstant?
  private var ends: [(at: HearthInstant, id: InvocationID, worker: WorkerID)] = []
  private var starting: [(at: HearthInstant, worker: WorkerID)] = []
  private var durations: [InvocationID: Duration] = [:]
  private var next: UInt64 = 1

  init(_ change: (inout FunctionPolicy) -> Void = { _ in }) {
    var policy = FunctionPolicy()
    change(&policy)
    schedule = FunctionSchedule(policy: policy, startMode: .spawn)
  }

  var workers: Int { schedule.poolSize }

  mutating func activate(workers: Int = 0) { take(schedule.activated(workers: workers, now: now)) }

  mutating func setPolicy(_ change: (inout FunctionPolicy) -> Void) {
    var policy = schedule.policy
    change(&policy)
    take(schedule.policyChanged(policy, now: now))
  }

  /// A request comes now and will keep its worker for this long.
  mutating func request(lasting duration: Duration = .zero) {
    let id = InvocationID(next)
    next += 1
    durations[id] = duration
    take(schedule.invocationArrived(id, now: now))
  }

  /// As many requests as given are in flight from now on for as long as given.
  mutating func load(_ count: Int, for duration: Duration) {
    for _ in 0..<count { request(lasting: duration) }
    run(until: now.advanced(by: duration))
  }

  mutating func run(for duration: Duration) { run(until: now.advanced(by: duration)) }

  mutating func run(until end: HearthInstant) {
    var steps = 0
    while let due = [wakeAt, ends.first?.at, starting.first?.at].compactMap({ $0 }).min(), due <= end {
      steps += 1
      precondition(steps < 1_000_000, "the schedule asks for wake-ups without end")
      now = max(now, due)
      if let first = ends.first, first.at <= now {
        ends.removeFirst()
        take(schedule.invocationFinished(first.id, on: first.worker, now: now))
      } else if let first = starting.first, first.at <= now {
        starting.removeFirst()
        ready.insert(first.worker)
        take(schedule.workerBecameReady(first.worker, now: now))
      } else {
        wakeAt = nil
        take(schedule.timeReached(now: now))
      }
    }
    now = end
  }

  mutating func take(_ actions: [FunctionSchedule.Action]) {
    for action in actions {
      switch action {
      case .run(let id, let worker, let kind):
        if kind == .cold { cold += 1 }
        let end = now.advanced(by: durations[id] ?? .zero)
        let index = ends.firstIndex { $0.at > end } ?? ends.endIndex
        ends.insert((end, id, worker), at: index)
      case .reject(let id, let reason): rejected.append((id, reason))
      case .startWorker(let id, let reason):
        started.append((now, reason))
        take(schedule.workerStartBegan(id, now: now))
        starting.append((now.advanced(by: startTime), id))
      case .stopWorker(let id, let reason), .killWorker(let id, let reason):
        stopped.append((now, reason))
        ready.remove(id)
        take(schedule.workerExited(id, now: now))
      case .wake(let instant): wakeAt = min(wakeAt ?? instant, instant)
      case .sendAhead, .recall, .hurryWorker: break
      }
    }
  }
}
