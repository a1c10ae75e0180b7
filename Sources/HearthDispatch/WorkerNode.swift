import HearthCore
import HearthScheduler
import HearthWorker
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Where workers run: endpoints ask here before they start one, and tell what became of it.
///
/// A worker needs the machine's memory, and one of a function with `gpu` also a device's. It gets the device's first,
/// and then, where it has a process of its own, the machine's; in a process that it shares, that counts as overhead.
final class WorkerNode: Sendable {
  let memory: DeviceLedger
  let devices: [DeviceLedger]
  private let host: any WorkerHost
  private let hostTier: HostTier
  /// Which device the workers were given that need one.
  private let places = NIOLockedValueBox<[WorkerID: Place]>([:])
  private let keeping = NIOLockedValueBox(())

  init(_ limits: NodeLimits, host: any WorkerHost, clock: any HearthClock, timers: any EventLoop, logger: Logger) {
    self.host = host
    hostTier = HostTier(budget: limits.hostCache.bytes)
    memory = DeviceLedger(
      DeviceSchedule(memory: limits.memory.bytes, startsMax: limits.startsMax, eviction: limits.eviction),
      host: host, clock: clock, timers: timers, logger: logger)
    devices = host.devices.map { device in
      // A load keeps the way to a device busy until it is done.
      let schedule = DeviceSchedule(
        memory: limits.budget(of: device).bytes, startsMax: limits.loadsMax, startTime: nil,
        eviction: limits.eviction)
      return DeviceLedger(schedule, of: device, host: host, clock: clock, timers: timers, logger: logger)
    }
    for ledger in devices { ledger.measureOverhead() }
  }

  /// The device for an endpoint's next worker: one that it fits on beside what others use; of those one without a copy
  /// of the same, so that a second copy of what is asked for a lot adds a device to it; then one that keeps its model;
  /// then one that has room for it; and else the one whose idle workers are needed least.
  private func device(for endpoint: FunctionEndpoint, _ demand: DeviceSchedule.Demand) -> DeviceLedger? {
    let keeping = Set(host.keptModels.lazy.filter { $0.isOf(endpoint.owner) }.compactMap(\.device))
    let bytes = demand.declared ?? demand.predicted ?? 0
    func rank(_ ledger: DeviceLedger) -> (Int, Int, Int, Int, Double) {
      let (free, most) = ledger.room
      let isKept = ledger.device.map(keeping.contains) ?? false
      let fits = free >= bytes
      return (
        most >= bytes ? 1 : 0, -ledger.count(of: endpoint.owner), isKept ? 1 : 0, fits ? 1 : 0,
        fits ? Double(free) : -ledger.regret(bytes - free, for: endpoint)
      )
    }
    guard devices.count > 1 else { return devices.first }
    return devices.map { ($0, rank($0)) }.max { $0.1 < $1.1 }?.0
  }

  private struct Place {
    let ledger: DeviceLedger
    /// What it was asked for with.
    let demand: DeviceSchedule.Demand
  }

  private func place(of id: WorkerID) -> DeviceLedger? {
    devices.isEmpty ? nil : places.withLockedValue { $0[id] }?.ledger
  }

  // Starts.

  func ask(_ id: WorkerID, for endpoint: FunctionEndpoint, _ reason: FunctionSchedule.StartReason) {
    guard endpoint.usesDevice else {
      return memory.ask(id, for: endpoint, endpoint.demand(reason, onDevice: false))
    }
    // Others than our workers may have come to use them.
    for device in devices { device.measureOverhead() }
    let demand = endpoint.demand(reason, onDevice: true)
    guard let ledger = device(for: endpoint, demand) else {
      return endpoint.startRefused(id, "this machine has no GPU")
    }
    places.withLockedValue { $0[id] = Place(ledger: ledger, demand: demand) }
    ledger.ask(id, for: endpoint, demand)
  }

  /// One ledger has what the worker needs of it.
  func granted(_ id: WorkerID, for endpoint: FunctionEndpoint, by ledger: DeviceLedger) {
    let place = places.withLockedValue { $0[id] }
    if let place, ledger !== memory, !endpoint.version.sharesProcesses {
      var demand = place.demand
      demand.declared = endpoint.version.spec.resources.memory?.bytes
      demand.predicted = nil
      demand.least = 0
      memory.ask(id, for: endpoint, demand)
    } else if place == nil, ledger !== memory {
      // It was given up before it was asked for here.
      ledger.ended(id)
    } else {
      endpoint.startGranted(id, on: place?.ledger.device)
    }
  }

  /// A request waits for a worker that was asked for without one.
  func hurry(_ id: WorkerID) {
    guard let place = place(of: id) else { return memory.hurry(id) }
    place.hurry(id)
    if memory.isAsked(id) { memory.hurry(id) }
  }

  func becameReady(_ id: WorkerID) {
    place(of: id)?.becameReady(id)
    memory.becameReady(id)
  }

  /// A worker was told to end.
  func leaves(_ id: WorkerID) {
    place(of: id)?.leaves(id)
    memory.leaves(id)
  }

  /// A worker is gone, or is not to be started any more.
  ///
  /// - Parameter kept: what of the machine's memory is not free all the same.
  func ended(_ id: WorkerID, kept: ByteSize = .zero) {
    let place = devices.isEmpty ? nil : places.withLockedValue { $0.removeValue(forKey: id) }
    // The machine's memory first: whoever gets the device asks for that next.
    memory.ended(id, kept: kept)
    place?.ledger.ended(id)
  }

  /// A worker's load found less memory than it needed. Returns the reason with the numbers.
  func ranOut(_ id: WorkerID, _ reason: String) -> String { (place(of: id) ?? memory).ranOut(id, reason) }

  // Measures.

  /// What a worker is reserved of the machine's memory, or was measured to take of it.
  func bytes(of id: WorkerID) -> ByteSize { memory.bytes(of: id) }

  /// A worker's share of the machine's memory was measured.
  func measured(_ id: WorkerID, _ bytes: ByteSize) { memory.measured(id, bytes, peak: bytes, kept: .zero) }

  /// A worker itself says what its model takes: of its device if it has one.
  ///
  /// - Parameters:
  ///   - peak: the most that it took while it was loaded.
  ///   - kept: what the process that it shares has come to take more of the machine's memory.
  func told(_ id: WorkerID, _ bytes: ByteSize, peak: ByteSize, kept: ByteSize) {
    if let place = place(of: id) {
      place.measured(id, bytes, peak: peak, kept: .zero)
      memory.kept(kept)
    } else {
      memory.measured(id, bytes, peak: peak, kept: kept)
    }
  }

  /// An endpoint's worker has served its first request: its memory can be measured.
  func measureSoon(_ endpoint: FunctionEndpoint) { memory.measureSoon(endpoint) }

  // Models that leave their device.

  /// Has a worker's model kept in the machine's memory when it makes room on its device, if that is of use and there is
  /// room; others that are kept may have to go for it.
  func keep(_ worker: any WorkerHandle, of endpoint: FunctionEndpoint) {
    guard worker.canBeKept, endpoint.keepsForever, let place = place(of: worker.id) else { return }
    let bytes = place.bytes(of: worker.id)
    let wanted = devices.reduce(into: Set<WorkerOwner>()) { $0.formUnion($1.waitingOwners) }
    let free = memory.unclaimed
    // One after another: each counts what the others keep.
    let victims: [KeptModel]? = keeping.withLockedValue { _ in
      let kept = host.keptModels
      let standing = kept.map { model in
        HostTier.Kept(bytes: model.bytes.bytes, isWanted: wanted.contains { model.isOf($0) })
      }
      guard let places = hostTier.victims(for: bytes.bytes, among: standing, free: free), worker.keep(bytes) else {
        return nil
      }
      return places.map { kept[$0] }
    }
    guard let victims else { return }
    memory.kept(bytes)
    for victim in victims { host.discard(victim) }
  }

  /// A version is served no more.
  func forget(_ function: FunctionName, version: Int) { host.forget(function, deploy: version) }

  // Eviction.

  /// How far the cache has come that an endpoint's workers are in.
  func cache(for endpoint: FunctionEndpoint) -> CacheClock {
    guard endpoint.usesDevice, let device = devices.first else { return memory.cache }
    return device.cache
  }

  /// A worker has finished a request: if something waits for memory and the worker is idle now, it may make room.
  func workerMayBeIdle() {
    memory.workerMayBeIdle()
    for device in devices { device.workerMayBeIdle() }
  }

  // Owners.

  /// A model was taken away.
  func removed(_ owner: WorkerOwner) {
    for ledger in ledgers { ledger.removed(owner) }
    for model in host.keptModels where model.isOf(owner) { host.discard(model) }
  }

  /// Another version of a function serves now, or none.
  func versionTookOver(_ function: FunctionName, version: Int?) {
    for ledger in ledgers { ledger.versionTookOver(function, version: version) }
  }

  var ledgers: [DeviceLedger] { [memory] + devices }
}

extension KeptModel {
  fileprivate func isOf(_ owner: WorkerOwner) -> Bool {
    function == owner.function && deploy == owner.version && model.name == owner.model?.rawValue
  }
}

/// What the workers of a node may take together, and who makes room.
public struct NodeLimits: Sendable {
  public var memory: ByteSize
  /// Workers that may be starting at once.
  public var startsMax: Int
  public var eviction: Eviction
  /// What workers may take of each device; nil: all but `deviceReserve`.
  public var deviceMemory: ByteSize?
  /// What models may take of the machine's memory that have left their device.
  public var hostCache: ByteSize
  /// Loads that may be under way on one device.
  public var loadsMax = 2

  /// 512 MiB: for what a driver and its libraries allocate behind everyone's back.
  public static let deviceReserve = ByteSize.mib(512)

  public init(memory: ByteSize, startsMax: Int, eviction: Eviction = .lru) {
    self.memory = memory
    hostCache = ByteSize(bytes: memory.bytes / 2)
    self.startsMax = startsMax
    self.eviction = eviction
  }

  /// A device that is not there needs no reserve.
  func budget(of device: Device) -> ByteSize {
    if let deviceMemory { return min(deviceMemory, device.memory) }
    if case .simulated = device.kind { return device.memory }
    return ByteSize(bytes: max(0, device.memory.bytes - NodeLimits.deviceReserve.bytes))
  }
}
