import Foundation
import HearthCore
import HearthWorkerProtocol
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Runs workers as processes of this machine. All state lives on one event loop, apart from those of the requests.
public final class LocalHost: WorkerHost, @unchecked Sendable {
  // What is variable is touched on `loop` only.
  let loop: any EventLoop
  private let runtime: String
  private let directory: String
  private let dataFolder: String
  private let zygoteLog: FunctionLog
  private let logger: Logger
  private var zygotes: [Zygote.Key: Zygote] = [:]
  /// By what their zygotes know them.
  var workers: [WorkerID: LocalWorker] = [:]
  private var ownCount: UInt64 = 0
  var isMeasureDue = false
  let keptCount = NIOLockedValueBox<UInt64>(0)
  var sparesAllowed = NIODeadline.uptimeNanoseconds(0)
  let overheadObserver = NIOLockedValueBox<@Sendable () -> Void>({})
  /// Changed on `loop` only; read from wherever they are measured.
  let spares = NIOLockedValueBox<[VersionKey: LocalWorker]>([:])
  /// By the ids of their carriers; as the spares.
  let shared = NIOLockedValueBox<[WorkerID: SharedProcess]>([:])
  /// How many deploys prepare with a zygote now; those keep it.
  private var claims: [Zygote.Key: Int] = [:]
  public let devices: [Device]
  private let nvml = NVML()
  private let gateway = NIOLockedValueBox<String?>(nil)
  private var hasReportedIsolation = false
  private let isolation = NIOLockedValueBox<[String: String]?>(nil)
  /// The zygotes' processes, for those who measure them from other threads.
  private let zygotePids = NIOLockedValueBox<[ObjectIdentifier: Int32]>([:])

  /// - Parameters:
  ///   - runtime: the folder that holds `hearth_runtime`.
  ///   - dataFolder: where workers get their private folders, and what is hidden from them; short, since sockets lie in
  ///     them.
  ///   - simulated: devices that are not there, to be taken for ones that are.
  public init(
    loop: any EventLoop, runtime: String, dataFolder: String, logs: String, simulated: [Device] = [], logger: Logger
  ) throws {
    devices = (nvml?.devices ?? []) + simulated
    self.loop = loop
    self.runtime = runtime
    self.directory = "\(dataFolder)/run"
    self.dataFolder = dataFolder
    self.logger = logger
    zygoteLog = FunctionLog(path: "\(logs)/zygotes.log")
    try? FileManager.default.removeItem(atPath: directory)
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o711])
  }

  /// Says where functions that may use the network find the data plane: an address that this machine reaches.
  public func serves(at address: String) { gateway.withLockedValue { $0 = address } }

  /// What isolation this machine lacks and why, by feature; nil until the first zygote has tried.
  public var missingIsolation: [String: String]? { isolation.withLockedValue { $0 } }

  /// Starts the zygote of an environment ahead of its first worker, and keeps it until `release`. Fails with the reason
  /// when its imports do.
  public func prepare(_ environment: PythonEnvironment, preload: [String]) -> EventLoopFuture<Void> {
    let promise = loop.makePromise(of: Void.self)
    let key = Zygote.Key(environment: environment, preload: preload)
    loop.execute { [self] in
      claims[key, default: 0] += 1
      do {
        let zygote = try zygote(key)
        zygote.whenSettled {
          if case .ended(let reason) = zygote.state {
            promise.fail(HearthError(.loadFailed, "The function cannot be loaded: \(reason)."))
          } else {
            promise.succeed()
          }
        }
      } catch {
        promise.fail(error)
      }
    }
    return promise.futureResult
  }

  /// Takes back one `prepare`, whether it succeeded or not.
  public func release(_ environment: PythonEnvironment, preload: [String]) {
    loop.execute { [self] in claims[Zygote.Key(environment: environment, preload: preload), default: 1] -= 1 }
  }

  /// Ends every zygote that none of these environments, no deploy under way and no worker needs.
  public func retainZygotes(_ needed: [(environment: PythonEnvironment, preload: [String])]) {
    let keys = Set(needed.map { Zygote.Key(environment: $0.environment, preload: $0.preload) })
    loop.execute { [self] in
      for (key, zygote) in zygotes where !keys.contains(key) && claims[key, default: 0] <= 0 {
        if !workers.values.contains(where: { $0.zygote === zygote }) { zygote.end() }
      }
    }
  }

  public func start(
    _ plan: WorkerPlan, observer: @escaping WorkerObserver
  ) -> any WorkerHandle {
    if plan.isShared, plan.model != nil {
      let worker = HousedWorker(plan, loop: loop, observer: observer)
      loop.execute { [self] in house(worker) }
      return worker
    }
    let worker = makeWorker(plan, observer: observer)
    loop.execute { [self] in
      worker.whenReady { [self] in refillSpare(for: plan) }
      worker.whenGone { [self] in endSpareIfUnused(plan) }
      if !worker.isStopWanted, let spare = takeSpare(for: plan) {
        workers[spare.processID] = worker
        worker.whenGone { [self, unowned worker] in workers[worker.processID] = nil }
        worker.takeOver(spare)
      } else {
        launch(worker)
      }
    }
    return worker
  }

  func makeWorker(
    _ plan: WorkerPlan, role: LocalWorker.Role = .worker, observer: @escaping WorkerObserver
  ) -> LocalWorker {
    var plan = plan
    if plan.network { plan.variables["HEARTH_GATEWAY"] = gateway.withLockedValue(\.self) }
    return LocalWorker(
      plan, directory: "\(directory)/\(plan.id)", dataFolder: dataFolder, loop: loop, role: role, observer: observer)
  }

  /// The id of a process that nobody has asked for.
  func nextOwnID() -> WorkerID {
    ownCount += 1
    return .own(ownCount)
  }

  /// Gives a worker a process of its own.
  func launch(_ worker: LocalWorker) {
    workers[worker.processID] = worker
    worker.whenGone { [self, unowned worker] in workers[worker.processID] = nil }
    do {
      let zygote = try zygote(Zygote.Key(environment: worker.plan.environment, preload: worker.plan.preload))
      zygote.whenSettled { worker.launch(from: zygote) }
    } catch {
      worker.fail((error as? HearthError)?.message ?? "its process could not be started")
    }
  }

  public func used(of device: Device) -> ByteSize? { nvml?.used(of: device) }

  public func used(of device: Device, by pid: Int32) -> ByteSize? { nvml?.used(of: device, by: pid) }

  public var overhead: HostOverhead {
    let zygotes = zygotePids.withLockedValue { Array($0.values) }.compactMap(ProcessMemory.own)
    let shared = shared.withLockedValue { Array($0.values) }
    let spares = spares.withLockedValue { Array($0.values) }.compactMap(\.memory)
    let busy = shared.filter { !$0.isEmpty }
    let kept = busy.flatMap(\.kept)
    // What is about to be kept is not there yet, and counts.
    let keptThere = ByteSize.sum(kept.filter(\.isThere).map(\.bytes))
    let beside = ByteSize.sum(busy.compactMap(\.overhead))
    return HostOverhead(
      zygotes: .sum(zygotes), shared: ByteSize(bytes: max(0, beside.bytes - keptThere.bytes)),
      spares: .sum(spares + shared.filter(\.isEmpty).compactMap(\.overhead) + kept.map(\.bytes)))
  }

  /// Ends every zygote, and with them every worker that still runs.
  public func shutDown() -> EventLoopFuture<Void> {
    loop.submit { [self] in
      for zygote in zygotes.values { zygote.end() }
      zygotes.removeAll()
    }
  }

  private func zygote(_ key: Zygote.Key) throws -> Zygote {
    if let zygote = zygotes[key] {
      if case .ended = zygote.state {} else { return zygote }
    }
    let zygote = try Zygote(
      key, runtime: runtime, log: zygoteLog, loop: loop, report: { [self] in dispatch($0) },
      ended: { [self] in ended($0) })
    zygotes[key] = zygote
    zygotePids.withLockedValue { $0[ObjectIdentifier(zygote)] = zygote.pid }
    zygote.whenSettled { [self, unowned zygote] in reportIsolation(of: zygote) }
    return zygote
  }

  private func dispatch(_ report: ZygoteReport) {
    switch report {
    case .started(let worker, let pid):
      WorkerID(worker).flatMap { workers[$0] }?.processStarted(pid)
    case .exited(let worker, let status, let signal, _):
      WorkerID(worker).flatMap { workers[$0] }?.processExited(status: status, signal: signal)
    case .ready, .failed: break
    }
  }

  private func ended(_ zygote: Zygote) {
    zygotePids.withLockedValue { $0[ObjectIdentifier(zygote)] = nil }
    for worker in workers.values where worker.zygote === zygote {
      worker.endGroup()
      worker.processExited(status: nil, signal: SIGKILL)
    }
    // Another may have taken its place already.
    if zygotes[zygote.key] === zygote { zygotes[zygote.key] = nil }
  }

  private func reportIsolation(of zygote: Zygote) {
    guard case .ready = zygote.state else { return }
    if let warning = zygote.warning { logger.warning("zygote: \(warning)") }
    guard !hasReportedIsolation else { return }
    hasReportedIsolation = true
    isolation.withLockedValue { $0 = zygote.missingIsolation }
    for (feature, reason) in zygote.missingIsolation.sorted(by: { $0.key < $1.key }) {
      logger.warning("workers run without \(feature): \(reason)")
    }
  }
}

/// One version of one function on one device, whose processes are good for any of its models.
struct VersionKey: Hashable {
  let function: FunctionName
  let deploy: Int
  let device: Device?

  init(_ plan: WorkerPlan) {
    function = plan.function
    deploy = plan.deploy
    device = plan.device
  }
}
