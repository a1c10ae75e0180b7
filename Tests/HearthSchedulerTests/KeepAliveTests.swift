import HearthCore
import HearthTestSupport
import Testing

@testable import HearthScheduler

@Suite("Keep-alives that learn")
struct KeepAliveTests {
  private func probe(
    _ keepAlive: FunctionPolicy.KeepAlive, cost: Duration = .seconds(600), gaps: [Double]
  ) -> ScheduleProbe {
    var probe = ScheduleProbe {
      $0.keepAlive = keepAlive
      $0.coldStartCost = cost
    }
    probe.startTime = .seconds(1)
    for gap in gaps {
      probe.request()
      probe.run(for: .seconds(gap))
    }
    return probe
  }

  @Test(
    "Before anything is learned a worker is kept for cold-start-cost",
    arguments: [.adaptive, .cost] as [FunctionPolicy.KeepAlive])
  func untaught(keepAlive: FunctionPolicy.KeepAlive) {
    var probe = probe(keepAlive, gaps: [1])
    probe.run(for: .seconds(598))
    #expect(probe.workers == 1)
    probe.run(for: .seconds(5))
    #expect(probe.workers == 0)
  }

  @Test(
    "A function called every half hour is stopped between and started again in time",
    arguments: [.adaptive, .learned] as [FunctionPolicy.KeepAlive])
  func timer(keepAlive: FunctionPolicy.KeepAlive) {
    var probe = probe(keepAlive, gaps: Array(repeating: 1_800, count: 60))
    let cold = probe.cold
    for _ in 0..<10 {
      probe.request()
      #expect(probe.workers == 1)
      probe.run(for: .seconds(900))
      #expect(probe.workers == 0, "nobody is expected now")
      probe.run(for: .seconds(900))
    }
    #expect(probe.cold == cold, "a worker stood ready each time")
    #expect(probe.started.contains { $0.reason == .prewarm })
    #expect(probe.stopped.contains { $0.reason == .unexpected })
  }

  @Test("A prewarmed worker that nobody needs stops again, and is not started for ever")
  func missed() {
    var probe = probe(.learned, gaps: Array(repeating: 1_800, count: 60))
    let starts = probe.started.count
    probe.run(for: .seconds(86_400))
    #expect(probe.workers == 0)
    #expect(probe.started.count - starts <= 2)
  }

  @Test("cost keeps a worker through the gaps that are worth it and no longer")
  func cost() {
    // Short gaps of a minute, long ones of five hours: a minute and a bit is cheapest.
    #expect(
      IdleTimes.cheapest(of: [60, 60, 60, 18_000, 60, 60, 60, 18_000].map { .seconds($0) }, cost: .seconds(600))
        == .seconds(64))
    // Nothing but long ones: not at all.
    let long = IdleTimes.cheapest(of: Array(repeating: .seconds(18_000), count: 20), cost: .seconds(600))
    #expect(long <= .seconds(1))
    // Fewer than eight say nothing.
    #expect(IdleTimes.cheapest(of: [.seconds(60)], cost: .seconds(600)) == .seconds(600))
  }

  @Test("forever keeps the last worker, and one whose memory is needed elsewhere goes all the same")
  func forever() {
    var probe = probe(.forever, gaps: [10])
    probe.run(for: .seconds(1_000_000))
    #expect(probe.workers == 1)
    let victim = probe.schedule.reclaimable(now: probe.now).candidates.first!
    probe.take(probe.schedule.workerReclaimed(victim.id, now: probe.now))
    #expect(probe.workers == 0)
    #expect(probe.stopped.map(\.reason) == [.reclaimed])
  }

  @Test("A forecast says nothing absurd, whatever it was taught")
  func forecastIsSane() {
    var random = SeededGenerator(seed: 11)
    for _ in 0..<200 {
      var forecast = ArrivalForecast()
      for _ in 0..<Int.random(in: 0...400, using: &random) {
        let exponent = Double.random(in: -3...6, using: &random)
        forecast.observe(.nanoseconds(Int64(1e9 * (0..<Int(exponent + 4)).reduce(1e-3) { value, _ in value * 10 })))
      }
      let plan = forecast.plan(
        cost: .seconds(Int.random(in: 1...100_000, using: &random)),
        startCost: .seconds(Int.random(in: 2...60, using: &random)))
      for (span, next) in zip(plan.spans, plan.spans.dropFirst()) { #expect(span.until < next.from) }
      for span in plan.spans { #expect(span.from >= .zero && span.from < span.until) }
    }
  }

  @Test("The dearer a cold start, the longer a worker is kept")
  func forecastFollowsCost() {
    var random = SeededGenerator(seed: 12)
    var forecast = ArrivalForecast()
    for _ in 0..<100 { forecast.observe(.seconds(Int.random(in: 1...3_000, using: &random))) }
    func kept(_ cost: Int) -> Double {
      let plan = forecast.plan(cost: .seconds(cost), startCost: .seconds(2))
      return plan.spans.reduce(0) { $0 + ($1.until - $1.from).seconds }
    }
    #expect(kept(10) < 300)
    #expect(kept(1_200) > kept(10))
    #expect(kept(100_000) > 2_000)
  }

  @Test("A request in the very tick of the idle expiry is served, in every order of events", arguments: 0..<4)
  func expiryRace(part: UInt64) {
    // 100,000 interleavings in all: a request, the wake-up, the worker's end and a second request around one instant.
    var random = SeededGenerator(seed: part)
    for _ in 0..<25_000 {
      var schedule = FunctionSchedule(policy: FunctionPolicy(), startMode: .fork)
      _ = schedule.invocationArrived(InvocationID(1), now: instant(0))
      _ = schedule.workerBecameReady(WorkerID(1), now: instant(1))
      _ = schedule.invocationFinished(InvocationID(1), on: WorkerID(1), now: instant(2))
      var served = 0
      var stopped: Set<WorkerID> = []
      var facts = [0, 1, 2, 3].shuffled(using: &random)
      while !facts.isEmpty {
        // Up to a nanosecond before or after the expiry.
        let now = HearthInstant(nanoseconds: 302_000_000_000 + Int64.random(in: -1...1, using: &random))
        let actions: [FunctionSchedule.Action]
        switch facts.removeFirst() {
        case 0: actions = schedule.invocationArrived(InvocationID(2), now: now)
        case 1: actions = schedule.timeReached(now: now)
        case 2: actions = schedule.invocationArrived(InvocationID(3), now: now)
        default: actions = stopped.contains(WorkerID(1)) ? schedule.workerExited(WorkerID(1), now: now) : []
        }
        for action in actions { note(action, &served, &stopped) }
      }
      var now = instant(303)
      for worker in stopped {
        for action in schedule.workerExited(worker, now: now) { note(action, &served, &stopped) }
      }
      for number in 2...4 where served < 2 {
        now = now.advanced(by: .seconds(1))
        let id = WorkerID(UInt64(number))
        for action in schedule.workerBecameReady(id, now: now) { note(action, &served, &stopped) }
        for id in [2, 3] as [UInt64] {
          for worker in [1, 2, 3, 4] as [UInt64] {
            let actions = schedule.invocationFinished(InvocationID(id), on: WorkerID(worker), now: now)
            for action in actions { note(action, &served, &stopped) }
          }
        }
      }
      guard served == 2, schedule.queueLength == 0 else {
        Issue.record("\(served) of two requests were served")
        return
      }
    }
  }

  private func note(_ action: FunctionSchedule.Action, _ served: inout Int, _ stopped: inout Set<WorkerID>) {
    switch action {
    case .run(_, let worker, _):
      served += 1
      #expect(!stopped.contains(worker), "a request goes to a worker that was stopped")
    case .stopWorker(let worker, _): stopped.insert(worker)
    default: break
    }
  }
}
