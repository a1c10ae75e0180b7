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
}
