import HearthCore
import Testing

@testable import HearthScheduler

private func at(_ milliseconds: Int64) -> HearthInstant { HearthInstant(nanoseconds: milliseconds * 1_000_000) }

private func invocation(_ number: UInt64) -> InvocationID { InvocationID(number) }

private let first = WorkerID(1)
private let second = WorkerID(2)

private func makeSchedule(
  mode: FunctionSchedule.StartMode = .fork, _ change: (inout FunctionPolicy) -> Void = { _ in }
) -> FunctionSchedule {
  var policy = FunctionPolicy()
  change(&policy)
  return FunctionSchedule(policy: policy, startMode: mode)
}

extension [FunctionSchedule.Action] {
  /// The actions less the wake-ups, which most tests do not look at.
  fileprivate var effects: [FunctionSchedule.Action] {
    filter {
      if case .wake = $0 { false } else { true }
    }
  }

  fileprivate var starts: Int {
    count {
      if case .startWorker = $0 { true } else { false }
    }
  }
}

@Suite("One function's schedule")
struct FunctionScheduleTests {
  @Test("A first request starts one worker and runs on it")
  func coldStart() {
    var schedule = makeSchedule()
    #expect(schedule.invocationArrived(invocation(1), now: at(0)).effects == [.startWorker(first, .activation)])
    #expect(schedule.workerBecameReady(first, now: at(5)).effects == [.run(invocation(1), on: first, .zygote)])
    #expect(schedule.invocationFinished(invocation(1), on: first, now: at(6)).effects == [])
    #expect(schedule.invocationArrived(invocation(2), now: at(7)).effects == [.run(invocation(2), on: first, .hot)])
  }

  @Test("A spawned worker's first request is a cold start, the next one in the queue a warm one")
  func startKinds() {
    var schedule = makeSchedule(mode: .spawn) { $0.workersMax = 1 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.invocationArrived(invocation(2), now: at(1))
    #expect(schedule.workerBecameReady(first, now: at(5)).effects == [.run(invocation(1), on: first, .cold)])
    let next = schedule.invocationFinished(invocation(1), on: first, now: at(6))
    #expect(next.effects == [.run(invocation(2), on: first, .warm)])
  }

  @Test("A thousand requests for a cold function start one worker with max-workers 1, and all run in order")
  func thundering() {
    var schedule = makeSchedule {
      $0.workersMax = 1
      $0.queueLengthMax = 1000
    }
    var starts = 0
    for number in 1...1000 { starts += schedule.invocationArrived(invocation(UInt64(number)), now: at(0)).starts }
    #expect(starts == 1)
    #expect(schedule.workerBecameReady(first, now: at(5)).effects == [.run(invocation(1), on: first, .zygote)])
    for number in 1..<1000 {
      let actions = schedule.invocationFinished(invocation(UInt64(number)), on: first, now: at(5 + Int64(number)))
      #expect(actions.effects == [.run(invocation(UInt64(number + 1)), on: first, .warm)])
    }
  }

  @Test("One request past max-queue-length is refused at once")
  func queueFull() {
    var schedule = makeSchedule { $0.queueLengthMax = 2 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.invocationArrived(invocation(2), now: at(0))
    guard case .reject(invocation(3), .queueFull(2, _)) = schedule.invocationArrived(invocation(3), now: at(0)).first
    else { return #expect(Bool(false), "the third request must be refused") }
  }

  @Test("max-concurrency gives a worker that many requests at a time")
  func concurrency() {
    var schedule = makeSchedule { $0.concurrencyMax = 2 }
    for number in 1...3 { _ = schedule.invocationArrived(invocation(UInt64(number)), now: at(0)) }
    let actions = schedule.workerBecameReady(first, now: at(1)).effects
    #expect(actions == [.run(invocation(1), on: first, .zygote), .run(invocation(2), on: first, .warm)])
  }

  @Test("An idle worker ends after keep-alive, and not before")
  func keepAlive() {
    var schedule = makeSchedule { $0.keepAlive = .fixed(.seconds(10)) }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.invocationFinished(invocation(1), on: first, now: at(1_000))
    #expect(schedule.timeReached(now: at(10_999)).effects == [])
    #expect(schedule.timeReached(now: at(11_000)).effects == [.stopWorker(first, .idle(.seconds(10)))])
    // The same instant's request starts another worker and is not lost.
    #expect(schedule.invocationArrived(invocation(2), now: at(11_000)).effects == [.startWorker(second, .activation)])
    #expect(schedule.workerExited(first, now: at(11_001)).effects == [])
    #expect(schedule.workerBecameReady(second, now: at(11_005)).effects == [.run(invocation(2), on: second, .zygote)])
  }

  @Test("A request just before the idle expiry keeps the worker")
  func raceWithExpiry() {
    var schedule = makeSchedule { $0.keepAlive = .fixed(.seconds(10)) }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.invocationFinished(invocation(1), on: first, now: at(1_000))
    #expect(
      schedule.invocationArrived(invocation(2), now: at(11_000)).effects == [.run(invocation(2), on: first, .hot)])
    #expect(schedule.timeReached(now: at(11_000)).effects == [])
  }

  @Test("keep-alive forever never ends a worker")
  func keepAliveForever() {
    var schedule = makeSchedule { $0.keepAlive = .forever }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.invocationFinished(invocation(1), on: first, now: at(6))
    #expect(schedule.timeReached(now: at(1_000_000_000)).effects == [])
  }

  @Test("min-workers is met without requests and again after a worker ends")
  func minimum() {
    var schedule = makeSchedule {
      $0.workersMin = 2
      $0.keepAlive = .fixed(.seconds(1))
    }
    let started = schedule.activated(workers: 0, now: at(0)).effects
    #expect(started == [.startWorker(first, .minimum), .startWorker(second, .minimum)])
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.workerBecameReady(second, now: at(5))
    #expect(schedule.timeReached(now: at(60_000)).effects == [])
    #expect(schedule.workerExited(first, now: at(60_001)).effects == [.startWorker(WorkerID(3), .minimum)])
  }

  @Test("buffer-workers keeps idle ones above those in use, while any is in use")
  func buffer() {
    var schedule = makeSchedule { $0.bufferWorkers = 1 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    let actions = schedule.workerBecameReady(first, now: at(5)).effects
    #expect(actions == [.run(invocation(1), on: first, .zygote), .startWorker(second, .buffer)])
  }

  @Test("The pool grows when the queue would outlast another start, by at most max-upscale-factor")
  func growth() {
    var schedule = makeSchedule {
      $0.upscaleFactorMax = 3
      $0.workersMax = 50
    }
    for number in 1...40 { _ = schedule.invocationArrived(invocation(UInt64(number)), now: at(0)) }
    _ = schedule.workerBecameReady(first, now: at(20))
    // A request takes 500 ms and a start 20 ms: 39 waiting ones are worth more workers.
    let actions = schedule.invocationFinished(invocation(1), on: first, now: at(520))
    #expect(actions.starts == 0, "the service time was not known when the first worker became ready")
    #expect(schedule.timeReached(now: at(540)).starts == 2, "from one worker to three")
  }

  @Test("Short requests do not grow the pool")
  func noGrowth() {
    var schedule = makeSchedule()
    for number in 1...20 { _ = schedule.invocationArrived(invocation(UInt64(number)), now: at(0)) }
    _ = schedule.workerBecameReady(first, now: at(50))
    var starts = 0
    for number in 1...15 {
      starts += schedule.invocationFinished(invocation(UInt64(number)), on: first, now: at(50 + Int64(number))).starts
      starts += schedule.timeReached(now: at(50 + Int64(number))).starts
    }
    #expect(starts == 0)
  }

  @Test("max-workers is never exceeded")
  func maximum() {
    var schedule = makeSchedule { $0.workersMax = 2 }
    var starts = 0
    for number in 1...50 { starts += schedule.invocationArrived(invocation(UInt64(number)), now: at(0)).starts }
    starts += schedule.workerBecameReady(first, now: at(10)).starts
    for step in 1...100 { starts += schedule.timeReached(now: at(10 + Int64(step) * 1_000)).starts }
    #expect(starts == 2)
  }

  @Test("A failed load is tried three times with growing pauses, then callers get the reason at once")
  func failedLoads() {
    var schedule = makeSchedule()
    #expect(schedule.invocationArrived(invocation(1), now: at(0)).starts == 1)
    #expect(schedule.workerFailedToStart(first, reason: "no such file", now: at(10)).effects == [])
    #expect(schedule.timeReached(now: at(509)).starts == 0)
    #expect(schedule.timeReached(now: at(510)).starts == 1)
    #expect(schedule.workerFailedToStart(second, reason: "no such file", now: at(520)).effects == [])
    #expect(schedule.timeReached(now: at(1_520)).starts == 1)
    let rejection = FunctionSchedule.Rejection.loadFailed(
      reason: "no such file", retryAfter: FunctionSchedule.loadFailureMemory)
    let last = schedule.workerFailedToStart(WorkerID(3), reason: "no such file", now: at(1_530))
    #expect(last.effects == [.reject(invocation(1), rejection)])
    guard
      case .reject(invocation(2), .loadFailed("no such file", _)) =
        schedule.invocationArrived(invocation(2), now: at(2_000)).first
    else { return #expect(Bool(false), "a remembered failure is answered at once") }
    // After fifteen minutes one more attempt is made.
    #expect(schedule.invocationArrived(invocation(3), now: at(1_000_000)).starts == 1)
  }

  @Test("A load without progress is killed; progress keeps it alive")
  func stalledLoad() {
    var schedule = makeSchedule { $0.loadStallTimeout = .seconds(10) }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerStartBegan(first, now: at(0))
    schedule.workerProgressed(first, now: at(9_000))
    #expect(schedule.timeReached(now: at(10_000)).effects == [])
    #expect(schedule.timeReached(now: at(19_000)).effects == [.killWorker(first, .stalled)])
  }

  @Test("A request held for longer than cold-start-timeout is answered")
  func coldStartTimeout() {
    var schedule = makeSchedule { $0.coldStartTimeout = .seconds(2) }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerStartBegan(first, now: at(0))
    #expect(schedule.timeReached(now: at(1_999)).effects == [])
    let late = schedule.timeReached(now: at(2_000)).effects
    #expect(late == [.reject(invocation(1), .coldStartTimeout(.seconds(2)))])
  }

  @Test("A request of which no byte reached its worker goes first again")
  func returned() {
    var schedule = makeSchedule { $0.workersMax = 2 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.invocationArrived(invocation(2), now: at(6))
    let bounced = schedule.invocationReturned(invocation(1), from: first, now: at(7))
    #expect(bounced.starts == 1, "a worker that takes no bytes is of no use")
    #expect(schedule.workerExited(first, now: at(8)).effects == [])
    let ready = schedule.workerBecameReady(second, now: at(12)).effects
    #expect(ready == [.run(invocation(1), on: second, .zygote)])
  }

  @Test("A client that leaves frees its place in the queue")
  func abandoned() {
    var schedule = makeSchedule { $0.queueLengthMax = 1 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerStartBegan(first, now: at(0))
    _ = schedule.invocationAbandoned(invocation(1), now: at(1))
    #expect(schedule.queueLength == 0)
    #expect(schedule.invocationArrived(invocation(2), now: at(2)).effects == [])
    #expect(schedule.workerBecameReady(first, now: at(5)).effects == [.run(invocation(2), on: first, .zygote)])
  }

  @Test("A retired version offers its queue on, finishes what runs and ends at the drain deadline")
  func retirement() {
    var schedule = makeSchedule {
      $0.workersMax = 1
      $0.drainTimeout = .seconds(5)
    }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    _ = schedule.invocationArrived(invocation(2), now: at(6))
    #expect(schedule.retired(now: at(7)).effects == [.reject(invocation(2), .retired)])
    #expect(schedule.timeReached(now: at(5_006)).effects == [])
    #expect(schedule.timeReached(now: at(5_007)).effects == [.killWorker(first, .drainTimeout)])
  }

  @Test("Lowering max-workers ends the surplus as it falls idle")
  func surplus() {
    var schedule = makeSchedule {
      $0.workersMin = 2
      $0.workersMax = 2
    }
    _ = schedule.activated(workers: 0, now: at(0))
    _ = schedule.workerBecameReady(first, now: at(1))
    _ = schedule.workerBecameReady(second, now: at(1))
    var policy = schedule.policy
    policy.workersMin = 0
    policy.workersMax = 1
    #expect(schedule.policyChanged(policy, now: at(2)).effects == [.stopWorker(first, .surplus)])
  }

  @Test("A request in the pause after a failed load wakes the schedule when the pause ends")
  func backOff() {
    var schedule = makeSchedule()
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    _ = schedule.workerStartBegan(first, now: at(0))
    _ = schedule.invocationAbandoned(invocation(1), now: at(1))
    _ = schedule.workerFailedToStart(first, reason: "no", now: at(10))
    let actions = schedule.invocationArrived(invocation(2), now: at(20))
    #expect(actions.contains(.wake(at(510))))
    #expect(schedule.timeReached(now: at(510)).starts == 1)
  }

  @Test("A request that no worker takes is refused after the third return")
  func returnsAreBounded() {
    var schedule = makeSchedule()
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    var refused = false
    for number in 1...10 where !refused {
      let worker = WorkerID(UInt64(number))
      _ = schedule.workerBecameReady(worker, now: at(Int64(number) * 10))
      let actions = schedule.invocationReturned(invocation(1), from: worker, now: at(Int64(number) * 10 + 1))
      _ = schedule.workerExited(worker, now: at(Int64(number) * 10 + 2))
      refused = actions.contains { if case .reject(invocation(1), .loadFailed) = $0 { true } else { false } }
      #expect(refused == (number == 4))
    }
    #expect(refused)
  }

  @Test("A worker that ends as soon as it is ready counts as a failed load, so that min-workers does not spin")
  func shortLives() {
    var schedule = makeSchedule { $0.workersMin = 1 }
    _ = schedule.activated(workers: 0, now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    #expect(schedule.workerExited(first, now: at(6)).starts == 0)
    #expect(schedule.timeReached(now: at(506)).starts == 1)
  }

  @Test("Lowering min-workers ends workers that are past their keep-alive at once")
  func lowering() {
    var schedule = makeSchedule {
      $0.workersMin = 1
      $0.keepAlive = .fixed(.seconds(1))
    }
    _ = schedule.activated(workers: 0, now: at(0))
    _ = schedule.workerBecameReady(first, now: at(5))
    var policy = schedule.policy
    policy.workersMin = 0
    let ended = schedule.policyChanged(policy, now: at(60_000)).effects
    #expect(ended == [.stopWorker(first, .idle(.milliseconds(59_995)))])
  }

  @Test("A request that finds its worker asked for but not needed yet makes it urgent")
  func hurries() {
    var schedule = makeSchedule { $0.workersMin = 1 }
    #expect(schedule.activated(workers: 0, now: at(0)).effects == [.startWorker(first, .minimum)])
    #expect(schedule.invocationArrived(invocation(1), now: at(1)).effects == [.hurryWorker(first)])
    #expect(schedule.invocationArrived(invocation(2), now: at(2)).effects == [], "once is enough")
  }

  @Test("A refused request leaves the schedule as it was: at rest, and with the wake-ups it asked for")
  func refusedAtRest() {
    var schedule = makeSchedule { $0.queueLengthMax = 0 }
    _ = schedule.invocationArrived(invocation(1), now: at(0))
    let actions = schedule.invocationArrived(invocation(2), now: at(1))
    #expect(actions.contains { if case .reject = $0 { true } else { false } })
    #expect(schedule.restBegan == nil)
  }

  @Test("A body on its way keeps the worker that was started for it, until its client leaves")
  func announced() {
    var schedule = makeSchedule {
      $0.keepAlive = .fixed(.seconds(1))
      $0.activationScale = 2
    }
    #expect(schedule.invocationAnnounced(now: at(0)).starts == 2)
    _ = schedule.timeReached(now: at(2_000))
    #expect(schedule.workerCount == 2, "not withdrawn, though nothing waits yet")
    let gone = schedule.announcementWithdrawn(now: at(2_100)).effects
    #expect(gone == [.killWorker(first, .notNeeded), .killWorker(second, .notNeeded)])
  }

  @Test("A worker that only the buffer kept goes when the buffer ends, whatever woke the schedule before")
  func bufferEnds() {
    var probe = ScheduleProbe {
      $0.bufferWorkers = 1
      $0.keepAlive = .fixed(.seconds(100))
    }
    probe.request(lasting: .seconds(1))
    probe.run(for: .seconds(50))
    // Announced and withdrawn: the rest begins again, and with it the buffer's time.
    probe.take(probe.schedule.invocationAnnounced(now: probe.now))
    probe.take(probe.schedule.announcementWithdrawn(now: probe.now))
    probe.run(for: .seconds(1_000))
    #expect(probe.workers == 0)
  }

  @Test("A deploy's worker that finds no room in time is given up")
  func noRoom() {
    var schedule = makeSchedule { $0.coldStartTimeout = .seconds(5) }
    _ = schedule.activated(workers: 1, now: at(0))
    #expect(schedule.timeReached(now: at(4_999)).effects == [])
    #expect(schedule.timeReached(now: at(5_000)).effects == [.killWorker(first, .noRoom)])
  }

  @Test("Numbers of workers go on in the next block")
  func numbers() {
    var numbers = WorkerNumbers(first: 1)
    var taken: Set<UInt64> = []
    for count in 0..<250_000 {
      if numbers.runOut { numbers.add(first: UInt64(1_000_000 + count)) }
      #expect(taken.insert(numbers.take()).inserted || count < 0)
    }
    #expect(taken.count == 250_000)
  }
}
