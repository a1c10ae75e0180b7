import Foundation
import HearthCore
import HearthTestSupport
import Testing

@testable import HearthScheduler

@Suite("Models that share a device")
struct ModelCacheTests {
  private static let seeds: ClosedRange<UInt64> =
    ProcessInfo.processInfo.environment["HEARTH_SOAK"] == nil ? 1...60 : 1...1_000

  @Test("Whatever fails: the budget holds, nothing in use makes room, each request ends once, nothing is left")
  func simulation() {
    var (events, evictions, yields, ranOut) = (0, 0, 0, 0)
    for seed in ModelCacheTests.seeds {
      var cache = SimulatedCache(seed: seed)
      events += cache.run(events: 4_000)
      #expect(cache.problems == [], "seed \(seed)")
      // Up to twenty models wait for room, one after another: for one that has it to have been of use, to finish what
      // it has, to be killed, and for a load.
      #expect(cache.longestWait < .seconds(60), "seed \(seed)")
      evictions += cache.evictions
      yields += cache.yields
      ranOut += cache.ranOut
    }
    #expect(
      events > 200_000 && evictions > 1_000 && yields > 100 && ranOut > 20,
      "\(events), \(evictions), \(yields), \(ranOut)")
  }

  @Test("The simulation sees memory that is given away before it is free")
  func plantedFault() {
    let problems = (1...5 as ClosedRange<UInt64>).flatMap { seed in
      var cache = SimulatedCache(seed: seed)
      cache.releasesEarly = true
      _ = cache.run(events: 2_000)
      return cache.problems
    }
    #expect(!problems.isEmpty)
  }

  private func candidate(_ id: UInt64, idle: Double, bytes: Int64, load: Double = 1, priority: Int = 0)
    -> Eviction.Candidate
  {
    var candidate = Eviction.Candidate(id: WorkerID(id), idle: .seconds(idle), bytes: bytes)
    candidate.loadTime = .seconds(load)
    candidate.priority = priority
    for _ in 0..<2 { candidate.usage.requested(CacheClock(), now: instant(0)) }
    return candidate
  }

  private func victims(_ eviction: Eviction, _ candidates: [Eviction.Candidate], _ bytes: Int64) -> [UInt64] {
    let device = DeviceSchedule(memory: 1_000, startsMax: 1, eviction: eviction)
    var found = FunctionSchedule.Reclaimable()
    found.candidates = candidates
    return device.victims(among: found, bytes: bytes, now: instant(100)).victims.map(\.id.rawValue)
  }

  @Test("lru takes what is idle longest, gdsf what is cheap to load again for its bytes, both the lower priority first")
  func whoMakesRoom() {
    let small = candidate(1, idle: 9, bytes: 100, load: 5)
    let large = candidate(2, idle: 1, bytes: 400, load: 5)
    let urgent = candidate(3, idle: 99, bytes: 400, load: 0.1, priority: 1)
    #expect(victims(.lru, [small, large], 50) == [1])
    #expect(victims(.gdsf, [small, large], 50) == [2])
    for eviction in Eviction.allCases { #expect(victims(eviction, [urgent, small, large], 50) != [3]) }
    #expect(victims(.lru, [urgent, small, large], 450).sorted() == [1, 2])
    #expect(victims(.lru, [small, large], 300) == [2], "the small one need not go as well")
    #expect(victims(.lru, [small, large], 501) == [], "in vain is not worth it")
  }

  @Test("What is kept for a moment is waited for, not passed over for something better")
  func waitsForAMoment() {
    var fresh = candidate(1, idle: 0, bytes: 100)
    fresh.freeAt = instant(101)
    fresh.priority = -1
    var found = FunctionSchedule.Reclaimable()
    found.candidates = [fresh, candidate(2, idle: 9, bytes: 100)]
    let device = DeviceSchedule(memory: 1_000, startsMax: 1)
    let now = device.victims(among: found, bytes: 50, now: instant(100))
    #expect(now.victims.isEmpty && now.next == instant(101))
    #expect(device.victims(among: found, bytes: 50, now: instant(101)).victims.map(\.id) == [WorkerID(1)])
  }

  @Test("A prediction is never absurd: not after a tiny model, not for a file of any size")
  func predictions() {
    var prediction = MemoryPrediction()
    #expect(prediction.bytes(files: 100 << 20) == 189 << 20)
    prediction.observe(files: 2, memory: 7 << 20)
    #expect((100 << 20...200 << 20).contains(prediction.bytes(files: 100 << 20)))
    prediction.observe(files: 100 << 20, memory: 450 << 20)
    #expect(prediction.bytes(files: 100 << 20) == 450 << 20)
    #expect((800 << 20...1_000 << 20).contains(prediction.bytes(files: 200 << 20)))
    #expect((400 << 20...450 << 20).contains(prediction.bytes(files: 90 << 20)))
    for files in [0, 1, Int64.max / 2, Int64.max, -5] { #expect(prediction.bytes(files: files) >= 0) }
  }

  @Test("Of any number that wait, one is given room by force at a time, and a denial looks for no other at once")
  func manyWait() {
    var device = DeviceSchedule(memory: 100, startsMax: 10)
    func owner(_ number: Int) -> WorkerOwner {
      WorkerOwner(function: try! FunctionName("f"), model: try! ModelName("m\(number)"))
    }
    _ = device.startAsked(WorkerID(1), of: owner(1), .init(declared: 90), now: instant(0))
    _ = device.workerBecameReady(WorkerID(1), now: instant(0))
    for number in 2...500 {
      _ = device.startAsked(WorkerID(UInt64(number)), of: owner(number), .init(declared: 90), now: instant(1))
    }
    let actions = device.timeReached(now: instant(60))
    #expect(actions.count { if case .yield = $0 { true } else { false } } == 1)
    #expect(actions.count < 5)
    #expect(
      device.roomDenied(for: WorkerID(2), now: instant(60)).allSatisfy { if case .wake = $0 { true } else { false } })
  }
}
