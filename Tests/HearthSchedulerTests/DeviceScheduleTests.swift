import HearthCore
import HearthTestSupport
import Testing

@testable import HearthScheduler

private let mebibyte: Int64 = 1 << 20

private func function(_ number: Int) -> FunctionName { try! FunctionName("f\(number)") }

private func owner(_ number: Int, version: Int = 0) -> WorkerOwner {
  WorkerOwner(function: function(number), version: version)
}

extension [DeviceSchedule.Action] {
  fileprivate var granted: [WorkerID] {
    compactMap { if case .grant(let id) = $0 { id } else { nil } }
  }

  fileprivate var effects: [DeviceSchedule.Action] {
    filter { if case .wake = $0 { false } else { true } }
  }
}

@Suite("A node's memory and starts")
struct DeviceScheduleTests {
  private func ask(
    _ node: inout DeviceSchedule, _ worker: UInt64, of number: Int, _ mebibytes: Int64 = 100,
    _ urgency: DeviceSchedule.Urgency = .demand, at seconds: Double = 0
  ) -> [DeviceSchedule.Action] {
    node.startAsked(
      WorkerID(worker), of: owner(number), .init(declared: mebibytes * mebibyte, urgency), now: instant(seconds))
  }

  @Test("At most so many start at once, and functions take turns")
  func starts() {
    var node = DeviceSchedule(memory: 10_000 * mebibyte, startsMax: 2)
    // One function asks for ten workers, then another for one.
    var granted: [WorkerID] = []
    for worker in 1...10 { granted += ask(&node, UInt64(worker), of: 1).granted }
    granted += ask(&node, 11, of: 2).granted
    #expect(granted == [WorkerID(1), WorkerID(2)])
    #expect(node.workerBecameReady(WorkerID(1), now: instant(0.1)).granted == [WorkerID(11)], "it has none under way")
    #expect(node.workerBecameReady(WorkerID(11), now: instant(0.2)).granted == [WorkerID(3)])
  }

  @Test("A start that takes long keeps no others away")
  func slowStarts() {
    var node = DeviceSchedule(memory: 10_000 * mebibyte, startsMax: 1)
    _ = ask(&node, 1, of: 1)
    let waiting = ask(&node, 2, of: 2, at: 0.5)
    #expect(waiting == [.wake(instant(2))])
    #expect(node.timeReached(now: instant(2)).granted == [WorkerID(2)])
  }

  @Test("Memory is never granted twice; idle workers are asked for room, those idle longest first")
  func memory() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    #expect(ask(&node, 1, of: 1).granted == [WorkerID(1)])
    #expect(ask(&node, 2, of: 2).granted == [WorkerID(2)])
    #expect(ask(&node, 3, of: 3).effects == [.reclaim(for: [WorkerID(3)])])
    var found = FunctionSchedule.Reclaimable()
    found.candidates = [
      Eviction.Candidate(id: WorkerID(1), idle: .seconds(1), bytes: 100 * mebibyte),
      Eviction.Candidate(id: WorkerID(2), idle: .seconds(9), bytes: 100 * mebibyte),
    ]
    #expect(node.victims(among: found, bytes: 50 * mebibyte, now: instant(9)).victims.map(\.id) == [WorkerID(2)])
    #expect(
      node.victims(among: found, bytes: 150 * mebibyte, now: instant(9)).victims.map(\.id) == [
        WorkerID(2), WorkerID(1),
      ])
    #expect(node.victims(among: found, bytes: 250 * mebibyte, now: instant(9)).victims == [], "in vain is not worth it")
    node.workerLeaves(WorkerID(2))
    #expect(node.timeReached(now: instant(1)).effects == [], "room is on its way")
    #expect(node.workerEnded(WorkerID(2), now: instant(2)).granted == [WorkerID(3)])
    #expect(node.granted == 200 * mebibyte)
  }

  @Test("A prewarm takes free memory only")
  func prewarm() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    _ = ask(&node, 2, of: 2)
    #expect(ask(&node, 3, of: 3, 100, .spare) == [])
    #expect(ask(&node, 4, of: 4, 50).granted == [WorkerID(4)], "one that waits goes first")
    #expect(node.workerEnded(WorkerID(1), now: instant(1)).granted == [WorkerID(3)])
  }

  @Test("What is larger than the whole budget is refused at once")
  func tooLarge() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    #expect(ask(&node, 1, of: 1, 300) == [.refuse(WorkerID(1), bytes: 300 * mebibyte)])
  }

  @Test("Measured memory counts from then on, and an excess is asked back")
  func measured() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    _ = ask(&node, 2, of: 2)
    #expect(
      node.workerMeasured(WorkerID(1), bytes: 180 * mebibyte, now: instant(1)) == [.reclaimExcess(30 * mebibyte)])
    #expect(node.bytes(of: WorkerID(1)) == 180 * mebibyte)
  }

  @Test("A function that was measured above the budget can start again, alone, and is measured anew after a deploy")
  func measuredAboveBudget() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = node.startAsked(WorkerID(1), of: owner(1), .init(declared: nil), now: instant(0))
    _ = node.workerMeasured(WorkerID(1), bytes: 400 * mebibyte, now: instant(1))
    _ = node.workerEnded(WorkerID(1), now: instant(2))
    let again = node.startAsked(WorkerID(2), of: owner(1), .init(declared: nil), now: instant(3))
    #expect(again.granted == [WorkerID(2)])
    #expect(node.bytes(of: WorkerID(2)) == 250 * mebibyte)
  }

  @Test("Each version is measured by itself, and what was declared counts for its own asks only")
  func versions() {
    var node = DeviceSchedule(memory: 1_000 * mebibyte, startsMax: 10)
    _ = node.startAsked(WorkerID(1), of: owner(1, version: 1), .init(declared: nil), now: instant(0))
    _ = node.workerMeasured(WorkerID(1), bytes: 500 * mebibyte, now: instant(1))
    _ = node.startAsked(WorkerID(2), of: owner(1, version: 2), .init(declared: 50 * mebibyte), now: instant(2))
    _ = node.startAsked(WorkerID(3), of: owner(1, version: 2), .init(declared: nil), now: instant(2))
    #expect(node.bytes(of: WorkerID(2)) == 50 * mebibyte)
    #expect(node.bytes(of: WorkerID(3)) == 256 * mebibyte)
    node.versionTookOver(function(1), version: 2)
    _ = node.workerEnded(WorkerID(1), now: instant(3))
    _ = node.startAsked(WorkerID(4), of: owner(1, version: 1), .init(declared: nil), now: instant(4))
    #expect(node.bytes(of: WorkerID(4)) == 256 * mebibyte, "the old one is forgotten")
  }

  @Test("One that nobody can make room for keeps none from having room made")
  func roomForEach() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    _ = ask(&node, 2, of: 2)
    _ = ask(&node, 3, of: 3, 240)
    #expect(ask(&node, 4, of: 4, 100, at: 1).effects == [.reclaim(for: [WorkerID(3), WorkerID(4)])])
    #expect(node.missing(for: WorkerID(3)) == 190 * mebibyte && node.missing(for: WorkerID(4)) == 50 * mebibyte)
    node.workerLeaves(WorkerID(1))
    #expect(node.missing(for: WorkerID(4)) == 0)
  }

  @Test("A start that became urgent before it was asked for is urgent")
  func hurriedEarly() {
    var node = DeviceSchedule(memory: 150 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    #expect(node.startBecameUrgent(WorkerID(2), now: instant(0)) == [])
    #expect(ask(&node, 2, of: 2, 100, .spare).effects == [.reclaim(for: [WorkerID(2)])])
  }

  @Test("A request that meets a spare start makes it urgent, and room is made for it")
  func hurry() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    _ = ask(&node, 2, of: 2)
    #expect(ask(&node, 3, of: 3, 100, .spare) == [])
    #expect(node.startBecameUrgent(WorkerID(3), now: instant(1)).effects == [.reclaim(for: [WorkerID(3)])])
  }

  @Test("The version before makes room for its successor first")
  func successor() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    for (id, name) in [(1, 1), (2, 2)] as [(UInt64, Int)] {
      _ = ask(&node, id, of: name)
      _ = node.workerBecameReady(WorkerID(id), now: instant(0))
    }
    let asked = node.startAsked(
      WorkerID(3), of: owner(2, version: 1), .init(declared: 100 * mebibyte), now: instant(0))
    #expect(asked.granted == [])
    #expect(node.timeReached(now: instant(31)).contains(.yield([owner(2), owner(1)], for: WorkerID(3))))
  }

  @Test("What nobody can make room for holds up no others")
  func hopeless() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1, 100)
    _ = node.workerBecameReady(WorkerID(1), now: instant(0))
    _ = ask(&node, 2, of: 2, 240, at: 0)
    #expect(node.timeReached(now: instant(31)).contains(.yield([owner(1)], for: WorkerID(2))))
    #expect(ask(&node, 3, of: 3, 50, at: 32).granted == [])
    #expect(node.roomDenied(for: WorkerID(2), now: instant(33)).effects == [])
    #expect(node.timeReached(now: instant(33.1)).granted == [WorkerID(3)])
    #expect(node.timeReached(now: instant(70)).contains(.yield([owner(1), owner(3)], for: WorkerID(2))) == false)
  }

  @Test("Spare processes go when nothing fits beside them, or has not for a second")
  func spares() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = node.overheadMeasured(20 * mebibyte, spares: 50 * mebibyte, now: instant(0))
    #expect(ask(&node, 1, of: 1, 200).effects == [.reclaim(for: [WorkerID(1)]), .dropSpares])
    #expect(node.overheadMeasured(20 * mebibyte, now: instant(1)).granted == [WorkerID(1)])
    #expect(ask(&node, 2, of: 2, 240, at: 1) == [.refuse(WorkerID(2), bytes: 240 * mebibyte)], "nor without them")
    _ = node.workerEnded(WorkerID(1), now: instant(2))
    _ = ask(&node, 3, of: 3, 100, at: 2)
    _ = node.overheadMeasured(20 * mebibyte, spares: 50 * mebibyte, now: instant(2))
    #expect(ask(&node, 4, of: 4, 100, at: 3).effects == [.reclaim(for: [WorkerID(4)])])
    #expect(node.timeReached(now: instant(4)).contains(.dropSpares))
  }

  @Test("A large worker is passed over for a while only, then a busy one must make room")
  func patience() {
    var node = DeviceSchedule(memory: 250 * mebibyte, startsMax: 10)
    _ = ask(&node, 1, of: 1)
    _ = node.workerBecameReady(WorkerID(1), now: instant(0))
    #expect(ask(&node, 2, of: 2, 200, at: 1).granted == [])
    #expect(ask(&node, 3, of: 3, 100, at: 2).granted == [WorkerID(3)], "it may pass")
    _ = node.workerEnded(WorkerID(3), now: instant(3))
    let due = node.timeReached(now: instant(31))
    #expect(due.contains(.yield([owner(1)], for: WorkerID(2))))
    #expect(ask(&node, 4, of: 4, 100, at: 32).granted == [], "nobody passes any more")
    #expect(node.workerEnded(WorkerID(1), now: instant(33)).granted == [WorkerID(2)])
  }

  @Test("No function waits for ever, whatever others ask for", arguments: 1...20 as ClosedRange<UInt64>)
  func fairness(seed: UInt64) {
    var world = ContendedNode(seed: seed)
    for _ in 0..<20_000 { world.step() }
    #expect(world.served > 100)
    // Twenty functions at most wait; each gets room when a few workers have yielded, one after another, and each of
    // those takes ten seconds at most.
    #expect(world.longestWait < 20 * 4 * 10, "\(world.longestWait) s")
    #expect(!world.isOverBudget)
  }

  @Test("What others take of a device may go again: a worker that does not fit beside it waits for its patience")
  func passingOverhead() {
    var device = DeviceSchedule(memory: 100 * mebibyte, startsMax: 10, startTime: nil)
    _ = device.overheadMeasured(0, passing: 60 * mebibyte, now: instant(0))
    #expect(ask(&device, 1, of: 1, 80).effects == [.reclaim(for: [WorkerID(1)])])
    #expect(device.overheadMeasured(0, passing: 10 * mebibyte, now: instant(1)).granted == [WorkerID(1)])
    _ = device.workerEnded(WorkerID(1), kept: 80 * mebibyte, now: instant(2))
    #expect(device.overhead == 90 * mebibyte, "not given back yet")
    #expect(ask(&device, 2, of: 2, 80, at: 2).granted == [])
    let late = device.timeReached(now: instant(2 + DeviceSchedule.patience.seconds))
    #expect(late.effects == [.refuse(WorkerID(2), bytes: 80 * mebibyte)])
    #expect(ask(&device, 3, of: 3, 120, at: 40).effects == [.refuse(WorkerID(3), bytes: 120 * mebibyte)])
  }

  @Test("What nobody knows the size of gets what there is beside the host's processes, at once")
  func unknownBesideOverhead() {
    var node = DeviceSchedule(memory: 120 * mebibyte, startsMax: 10)
    _ = node.overheadMeasured(20 * mebibyte, passing: 44 * mebibyte, now: instant(0))
    let actions = node.startAsked(
      WorkerID(1), of: owner(1), .init(predicted: 70 * mebibyte), now: instant(0))
    #expect(actions.granted == [WorkerID(1)])
    #expect(node.granted == 56 * mebibyte)
    var device = DeviceSchedule(memory: 120 * mebibyte, startsMax: 10, startTime: nil)
    _ = device.usedMeasured(64 * mebibyte, now: instant(0))
    let waiting = device.startAsked(
      WorkerID(1), of: owner(1), .init(predicted: 70 * mebibyte), now: instant(0))
    #expect(waiting.granted == [], "what others use there may go")
  }

  @Test("What others use of a device is neither hidden by a load nor taken to be more because of one")
  func foreignUse() {
    var device = DeviceSchedule(memory: 100 * mebibyte, startsMax: 10, startTime: nil)
    _ = device.usedMeasured(50 * mebibyte, now: instant(0))
    #expect(device.overhead == 50 * mebibyte)
    _ = ask(&device, 1, of: 1, 40)
    _ = device.usedMeasured(60 * mebibyte, now: instant(1))
    #expect(device.overhead == 50 * mebibyte, "ten of the load, or of others")
    _ = device.usedMeasured(95 * mebibyte, now: instant(2))
    #expect(device.overhead == 55 * mebibyte, "no load explains these")
    _ = device.usedMeasured(30 * mebibyte, now: instant(3))
    #expect(device.overhead == 30 * mebibyte, "others use no more than is used")
    _ = device.workerBecameReady(WorkerID(1), now: instant(4))
    _ = device.usedMeasured(45 * mebibyte, now: instant(4))
    #expect(device.overhead == 5 * mebibyte)
    _ = device.workerEnded(WorkerID(1), used: 45 * mebibyte, now: instant(5))
    #expect(device.overhead == 45 * mebibyte, "not given back yet")
  }

  @Test("A correction of what a worker takes and of what its process keeps is one fact")
  func correction() {
    var device = DeviceSchedule(memory: 100 * mebibyte, startsMax: 10)
    _ = ask(&device, 1, of: 1, 60)
    #expect(ask(&device, 2, of: 2, 50).granted == [])
    let corrected = device.workerMeasured(WorkerID(1), bytes: 20 * mebibyte, kept: 40 * mebibyte, now: instant(1))
    #expect(corrected.granted == [], "no less is in use")
    #expect(device.overheadGrew(-20 * mebibyte, now: instant(2)).granted == [WorkerID(2)])
  }
}

/// A node on which more functions want workers than fit, and no worker ever falls idle.
private struct ContendedNode {
  private static let memory = 1_000 * mebibyte
  private static let functions = 20

  private var random: SeededGenerator
  private var node: DeviceSchedule
  private var now = 0.0
  private var next: UInt64 = 1
  private var owners: [WorkerID: Int] = [:]
  private var running: [WorkerID: Int] = [:]
  private var ends: [(at: Double, id: WorkerID)] = []
  /// Since when each function has asked without having a worker.
  private var unserved: [Int: Double] = [:]
  private(set) var longestWait = 0.0
  private(set) var served = 0
  private(set) var isOverBudget = false

  init(seed: UInt64) {
    random = SeededGenerator(seed: seed)
    node = DeviceSchedule(memory: ContendedNode.memory, startsMax: Int.random(in: 1...4, using: &random))
  }

  mutating func step() {
    now += 0.1
    if random.chance(0.02), node.waitingCount < 60 { ask(Int.random(in: 1...ContendedNode.functions, using: &random)) }
    while let index = ends.firstIndex(where: { $0.at <= now }) {
      let id = ends.remove(at: index).id
      running[id] = nil
      handle(node.workerEnded(id, now: instant(now)))
    }
    handle(node.timeReached(now: instant(now)))
    for since in unserved.values { longestWait = max(longestWait, now - since) }
    if node.granted > ContendedNode.memory { isOverBudget = true }
  }

  private mutating func ask(_ number: Int) {
    let id = WorkerID(next)
    next += 1
    owners[id] = number
    if !running.values.contains(number), unserved[number] == nil { unserved[number] = now }
    let bytes = Int64(50 + 17 * number) * mebibyte
    handle(node.startAsked(id, of: owner(number), .init(declared: bytes), now: instant(now)))
  }

  private mutating func handle(_ actions: [DeviceSchedule.Action]) {
    for action in actions {
      switch action {
      case .grant(let id):
        served += 1
        running[id] = owners[id]!
        unserved[owners[id]!] = nil
        handle(node.workerBecameReady(id, now: instant(now)))
      case .yield(let owners, let asking):
        let busy = running.keys.filter { id in !ends.contains { $0.id == id } }
        guard let first = owners.first, let id = busy.filter({ owner(running[$0]!) == first }).min() else {
          handle(node.roomDenied(for: asking, now: instant(now)))
          continue
        }
        node.workerLeaves(id)
        ends.append((now + Double.random(in: 0...10, using: &random), id))
      case .refuse: Issue.record("nothing here is too large")
      case .reclaim, .reclaimExcess, .dropSpares, .wake: break
      }
    }
  }
}
