import Foundation
import Testing

@Suite("Schedules under random traffic and failures")
struct ScheduleSimulationTests {
  /// More than a million events in the short form; twelve million in the soak.
  private static let runs: UInt64 = ProcessInfo.processInfo.environment["HEARTH_SOAK"] == nil ? 600 : 6_000
  private static let eventsPerRun = 2_000

  @Test("Every request ends once, and no bound is broken, whatever happens")
  func invariants() throws {
    // One failing seed is repeated with: HEARTH_SEED=<seed> swift test --filter ScheduleSimulation
    let environment = ProcessInfo.processInfo.environment
    let seeds = environment["HEARTH_SEED"].flatMap { UInt64($0) }.map { $0...$0 } ?? 1...ScheduleSimulationTests.runs
    var events = 0
    var (sentAhead, givenBack) = (0, 0)
    var reasons: Set<String> = []
    for seed in seeds {
      var world = SimulatedWorld(seed: seed)
      events += world.run(events: ScheduleSimulationTests.eventsPerRun)
      sentAhead += world.sentAhead
      givenBack += world.givenBack
      reasons.formUnion(world.reasons)
      let problems = world.problems.prefix(3).joined(separator: "; ")
      try #require(
        world.problems.isEmpty,
        "seed \(seed): \(problems). Repeat: HEARTH_SEED=\(seed) swift test --filter ScheduleSimulation")
    }
    if environment["HEARTH_SEED"] == nil {
      #expect(events >= 1_000_000, "the simulation must be long enough to mean something")
      #expect(sentAhead > 1_000 && givenBack > 50, "\(sentAhead) sent ahead, \(givenBack) given back")
      let expected: Set = [
        "activation", "buffer", "minimum", "queue", "traffic", "warmWindow", "prewarm", "idle", "unexpected",
        "reclaimed", "yielded", "notNeeded", "stalled", "drainTimeout", "surplus",
      ]
      #expect(expected.subtracting(reasons) == [], "every kind of decision must occur")
    }
  }

  @Test("The simulation notices a broken rule")
  func noticesFaults() {
    var world = SimulatedWorld(seed: 1)
    world.faultyEveryThirdEnd = true
    _ = world.run(events: ScheduleSimulationTests.eventsPerRun)
    #expect(!world.problems.isEmpty)
  }
}
