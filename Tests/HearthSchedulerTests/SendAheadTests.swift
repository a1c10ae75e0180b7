import HearthCore
import HearthScheduler
import Testing

private func at(_ microseconds: Int64) -> HearthInstant { HearthInstant(nanoseconds: microseconds * 1_000) }

private func invocation(_ number: UInt64) -> InvocationID { InvocationID(number) }

private let worker = WorkerID(1)

extension [FunctionSchedule.Action] {
  fileprivate var effects: [FunctionSchedule.Action] {
    filter {
      if case .wake = $0 { false } else { true }
    }
  }
}

/// A schedule with one ready worker that has served a request in the time given.
private func makeSchedule(
  service microseconds: Int64, pipelines: Bool = true, _ change: (inout FunctionPolicy) -> Void = { _ in }
) -> FunctionSchedule {
  var policy = FunctionPolicy()
  policy.workersMax = 1
  change(&policy)
  var schedule = FunctionSchedule(policy: policy, startMode: .fork, pipelines: pipelines)
  _ = schedule.invocationArrived(invocation(1), now: at(0))
  _ = schedule.workerBecameReady(worker, now: at(0))
  _ = schedule.invocationFinished(invocation(1), on: worker, now: at(microseconds))
  _ = schedule.invocationArrived(invocation(2), now: at(10_000))
  return schedule
}

@Suite("Requests sent ahead of the one a worker has")
struct SendAheadTests {
  @Test("Short requests are sent ahead, as many as make a millisecond, eight at most", arguments: [50, 100, 300, 900])
  func depth(service: Int64) {
    var schedule = makeSchedule(service: service)
    let sent = (3...20).prefix { number in
      schedule.invocationArrived(invocation(number), now: at(10_001)).effects
        == [.sendAhead(invocation(number), to: worker)]
    }
    #expect(sent.count == min(8, Int(1_000 / service)))
    #expect(schedule.queueLength == 1)
  }

  @Test("Longer requests, and those of workers that do not answer in order, wait in the queue")
  func none() {
    var long = makeSchedule(service: 1_100)
    #expect(long.invocationArrived(invocation(3), now: at(10_001)).effects == [])
    var program = makeSchedule(service: 100, pipelines: false)
    #expect(program.invocationArrived(invocation(3), now: at(10_001)).effects == [])
    var threads = makeSchedule(service: 100) { $0.concurrencyMax = 2 }
    _ = threads.invocationArrived(invocation(3), now: at(10_001))
    #expect(threads.invocationArrived(invocation(4), now: at(10_001)).effects == [])
    var unqueued = makeSchedule(service: 100) { $0.queueLengthMax = 0 }
    #expect(unqueued.invocationArrived(invocation(3), now: at(10_001)).effects.count == 1)
    #expect(unqueued.queueLength == 0)
  }

  @Test("A request whose body is not whole is not sent ahead, and holds those behind it in order")
  func partial() {
    var schedule = makeSchedule(service: 100)
    #expect(schedule.invocationArrived(invocation(3), isWhole: false, now: at(10_001)).effects == [])
    #expect(schedule.invocationArrived(invocation(4), now: at(10_001)).effects == [])
    #expect(
      schedule.invocationFinished(invocation(2), on: worker, now: at(10_100)).effects
        == [.run(invocation(3), on: worker, .warm)], "nor is any sent behind it")
    #expect(
      schedule.invocationFinished(invocation(3), on: worker, now: at(10_200)).effects
        == [.run(invocation(4), on: worker, .warm)])
  }

  @Test("A worker that is held up gets no more ahead until its request is done")
  func heldUp() {
    var schedule = makeSchedule(service: 100)
    schedule.workerHeldUp(worker)
    #expect(schedule.invocationArrived(invocation(3), now: at(10_001)).effects == [])
    #expect(schedule.invocationArrived(invocation(4), now: at(10_002)).effects == [])
    #expect(
      schedule.invocationFinished(invocation(2), on: worker, now: at(10_100)).effects
        == [.run(invocation(3), on: worker, .warm), .sendAhead(invocation(4), to: worker)])
  }

  @Test("What a worker had when it ended keeps its place and its arrival")
  func exitedFirst() {
    var schedule = makeSchedule(service: 100)
    _ = schedule.invocationArrived(invocation(3), now: at(10_001))
    _ = schedule.workerExited(worker, now: at(10_050))
    #expect(schedule.workerCount == 0 && schedule.invocationsInFlight == 2)
    _ = schedule.invocationArrived(invocation(4), now: at(10_051))
    _ = schedule.invocationWithdrawn(invocation(3), from: worker, now: at(10_052))
    _ = schedule.invocationFinished(invocation(2), on: worker, isWorkerLost: true, now: at(10_053))
    #expect(schedule.position(of: invocation(3)) == 0)
    #expect(schedule.position(of: invocation(4)) == 1)
    #expect(schedule.invocationsInFlight == 0)
  }

  @Test("Behind a request that takes unusually long they are taken back, and come to their old place in the queue")
  func recall() {
    var schedule = makeSchedule(service: 100)
    for number in 3...11 as ClosedRange<UInt64> {
      _ = schedule.invocationArrived(invocation(number), now: at(10_000 + Int64(number)))
    }
    #expect(schedule.timeReached(now: at(15_000)).effects == [])
    let recalled = schedule.timeReached(now: at(20_100)).effects
    // The worker is at 2 and will not give that back; only it knows for sure.
    #expect(recalled == (2...10).map { .recall(invocation($0), from: worker) })
    #expect(schedule.timeReached(now: at(20_200)).effects == [], "each is asked for once")
    for number in [4, 3] as [UInt64] {
      #expect(schedule.invocationWithdrawn(invocation(number), from: worker, now: at(20_300)).effects == [])
    }
    #expect(schedule.queueLength == 3)
    #expect(schedule.invocationArrived(invocation(12), now: at(20_400)).effects == [], "a late worker gets no more")
    // The request that was late ends; those ahead of it that had not come back are next on its worker.
    _ = schedule.invocationFinished(invocation(2), on: worker, now: at(30_000))
    for number in 5...10 as ClosedRange<UInt64> {
      _ = schedule.invocationFinished(invocation(number), on: worker, now: at(30_000 + Int64(number)))
    }
    let next = schedule.invocationAbandoned(invocation(99), now: at(30_020)).effects
    #expect(next == [])
    #expect(schedule.invocationsInFlight == 1, "the oldest of the queue runs")
  }

  @Test("Only requests of one lane are sent behind one another, and no lane waits long for another")
  func lanes() {
    var schedule = makeSchedule(service: 100)
    #expect(schedule.invocationArrived(invocation(3), lane: 1, now: at(10_001)).effects == [])
    #expect(schedule.invocationArrived(invocation(4), lane: 0, now: at(10_002)).effects == [])
    let next = schedule.invocationFinished(invocation(2), on: worker, now: at(10_100)).effects
    #expect(next == [.run(invocation(3), on: worker, .warm)])
    #expect(schedule.invocationArrived(invocation(5), lane: 1, now: at(10_101)).effects == [])
    // The queue holds 4 (lane 0) and 5 (lane 1); the worker is at 3, of lane 1.
    _ = schedule.invocationArrived(invocation(6), lane: 1, now: at(10_102))
    let later = schedule.invocationFinished(invocation(3), on: worker, now: at(10_200)).effects
    #expect(later == [.run(invocation(4), on: worker, .warm)], "the oldest runs")
  }

  @Test("When their worker is lost they go to the next, before those that came later")
  func lost() {
    var schedule = makeSchedule(service: 100) { $0.workersMax = 2 }
    _ = schedule.invocationArrived(invocation(3), now: at(10_001))
    _ = schedule.invocationArrived(invocation(4), now: at(10_002))
    let lost = schedule.invocationFinished(invocation(2), on: worker, isWorkerLost: true, now: at(10_050)).effects
    #expect(lost == [])
    let third = schedule.invocationWithdrawn(invocation(3), from: worker, now: at(10_051)).effects
    #expect(third == [.startWorker(WorkerID(2), .activation)])
    _ = schedule.invocationWithdrawn(invocation(4), from: worker, now: at(10_052))
    _ = schedule.workerExited(worker, now: at(10_060))
    #expect(
      schedule.workerBecameReady(WorkerID(2), now: at(16_000)).effects.first
        == .run(invocation(3), on: WorkerID(2), .zygote))
  }
}
