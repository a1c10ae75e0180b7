import HearthScheduler
import Testing

@Suite("Models kept in the machine's memory")
struct HostTierTests {
  private let tier = HostTier(budget: 100)

  @Test("What fits is kept, and the one that left its device first goes first")
  func order() {
    let kept: [HostTier.Kept] = [.init(bytes: 40), .init(bytes: 30), .init(bytes: 20)]
    #expect(tier.victims(for: 10, among: kept, free: 1_000) == [])
    #expect(tier.victims(for: 11, among: kept, free: 1_000) == [0])
    #expect(tier.victims(for: 60, among: kept, free: 1_000) == [0, 1])
    #expect(tier.victims(for: 100, among: kept, free: 1_000) == [0, 1, 2])
  }

  @Test("What is larger than the budget, or than all memory there is, is not kept, and nothing goes in vain")
  func limits() {
    #expect(tier.victims(for: 101, among: [.init(bytes: 40)], free: 1_000) == nil)
    #expect(tier.victims(for: 50, among: [.init(bytes: 10)], free: 30) == nil)
    #expect(tier.victims(for: 40, among: [.init(bytes: 10)], free: 30) == [0], "what goes is free then")
    #expect(tier.victims(for: 0, among: [], free: 30) == nil)
    #expect(HostTier(budget: 0).victims(for: 1, among: [], free: 1_000) == nil)
  }

  @Test("What is about to go back to a device is not thrown out")
  func wanted() {
    let kept: [HostTier.Kept] = [.init(bytes: 40, isWanted: true), .init(bytes: 30), .init(bytes: 20)]
    #expect(tier.victims(for: 60, among: kept, free: 1_000) == [1, 2])
    #expect(tier.victims(for: 61, among: kept, free: 1_000) == nil)
  }
}
