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
  /// Which device the workers of functions with `gpu` were given.
  private let host: any WorkerHost
  private let hostTier: HostTier
  private let places = NIOLockedValueBox<[WorkerID: DeviceLedger]>([:])

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
        overheadStays: false, eviction: limits.eviction)
      return DeviceLedger(schedule, of: device, host: host, clock: clock, timers: timers, logger: logger)
    }
    for ledger in devices { ledger.measureOverhead() }
  }

  /// Where an endpoint's next worker is to be: on the device with most memory to spare of those without a copy of the
  /// same, so that a second copy of what is asked for a lot adds a device to it.
  private func ledger(for endpoint: FunctionEndpoint) -> DeviceLedger {
    guard endpoint.version.spec.resources.gpu > 0 else { return memory }
    func rank(_ device: DeviceLedger) -> (Int, Int64) { (-device.count(of: endpoint.owner), device.unclaimed) }
    return devices.max { rank($0) < rank($1) } ?? memory
  }

  private func place(of id: WorkerID) -> DeviceLedger? { devices.isEmpty ? nil : places.withLockedValue { $0[id] } }

  // Starts.

  func ask(_ id: WorkerID, for endpoint: FunctionEndpoint, _ reason: FunctionSchedule.StartReason) {
    if endpoint.version.spec.resources.gpu > 0 {
      // Others than our workers may have come to use them.
      for device in devices { device.measureOverhead() }
    }
    let ledger = ledger(for: endpoint)
    if ledger !== memory { places.withLockedValue { $0[id] = ledger } }
    ledger.ask(id, for: endpoint, endpoint.demand(reason, onDevice: ledger !== memory))
  }

  /// One ledger has what the worker needs of it.
  func granted(_ id: WorkerID, for endpoint: FunctionEndpoint, by ledger: DeviceLedger) {
    if ledger !== memory, !endpoint.version.sharesProcesses {
      memory.ask(id, for: endpoint, endpoint.hostDemand())
    } else {
      endpoint.startGranted(id, on: place(of: id)?.device)
    }
  }

  /// A request waits for a worker that was asked for without one.
  func hurry(_ id: WorkerID) {
    if let place = place(of: id) { place.hurry(id) } else { memory.hurry(id) }
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
    if !devices.isEmpty { places.withLockedValue { $0.removeValue(forKey: id) }?.ended(id) }
    memory.ended(id, kept: kept)
  }

  /// A worker's load found less memory than it needed. Returns the reason with the numbers.
  func ranOut(_ id: WorkerID, _ reason: String) -> String { (place(of: id) ?? memory).ranOut(id, reason) }

  // Measures.

  /// What a worker is reserved of the machine's memory, or was measured to take of it.
  func bytes(of id: WorkerID) -> ByteSize { memory.bytes(of: id) }

  /// A worker's share of the machine's memory was measured.
  func measured(_ id: WorkerID, _ bytes: ByteSize) { memory.measured(id, bytes.bytes, kept: .zero) }

  /// A worker itself says what its model takes: of its device if it has one.
  ///
  /// - Parameter kept: what the process that it shares has come to take more of the machine's memory.
  func told(_ id: WorkerID, _ bytes: ByteSize, kept: ByteSize) {
    if let place = place(of: id) {
      place.measured(id, bytes.bytes, kept: .zero)
      memory.kept(kept)
    } else {
      memory.measured(id, bytes.bytes, kept: kept)
    }
  }

  /// An endpoint's worker has served its first request: its memory can be measured.
  func measureSoon(_ endpoint: FunctionEndpoint) { memory.measureSoon(endpoint) }

  // Models that leave their device.

  /// How much a model may take of the machine's memory when its worker makes room on its device; nil where it is not to
  /// be kept there. Others that are kept may have to go for it.
  func keeps(_ id: WorkerID, of endpoint: FunctionEndpoint) -> ByteSize? {
    guard let place = place(of: id), endpoint.version.sharesProcesses, endpoint.keepsForever else { return nil }
    let bytes = place.bytes(of: id)
    let kept = host.keptModels
    let wanted = devices.reduce(into: Set<WorkerOwner>()) { $0.formUnion($1.waitingOwners) }
    let standing = kept.map { model in
      HostTier.Kept(bytes: model.bytes.bytes, isWanted: wanted.contains { model.isOf($0) })
    }
    guard let victims = hostTier.victims(for: bytes.bytes, among: standing, free: memory.unclaimed) else { return nil }
    for victim in victims { host.discard(kept[victim]) }
    return bytes
  }

  /// A version is served no more.
  func forget(_ function: FunctionName, version: Int) { host.forget(function, deploy: version) }

  // Eviction.

  /// How far the cache has come that an endpoint's workers are in.
  func cache(for endpoint: FunctionEndpoint) -> CacheClock {
    guard endpoint.version.spec.resources.gpu > 0, let device = devices.first else { return memory.cache }
    return device.cache
  }

  /// A worker has finished a request: if something waits for memory and the worker is idle now, it may make room.
  func workerMayBeIdle() {
    memory.workerMayBeIdle()
    for device in devices { device.workerMayBeIdle() }
  }

  // Owners.

  /// A model was taken away.
  func removed(_ owner: WorkerOwner) { for ledger in ledgers { ledger.removed(owner) } }

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
