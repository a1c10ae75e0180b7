import HearthCore
import HearthWorkerProtocol
import NIOConcurrencyHelpers
import NIOCore

/// A model's worker that shares its process with other models of its version.
///
/// What ends a process ends all its models; so `stop` unloads, and only a model that does not let go, or `kill`, ends
/// it.
final class HousedWorker: WorkerHandle, @unchecked Sendable {
  private enum State {
    /// Its process does not take models yet.
    case launching
    case loading
    case ready
    case unloading
    case gone
  }

  let id: WorkerID
  let plan: WorkerPlan
  private let loop: any EventLoop
  private let observer: WorkerObserver
  private let created = NIODeadline.now()

  // On `loop` only.
  private var state = State.launching
  private var failure: (reason: String, hasRunOutOfMemory: Bool)?
  private var isStopWanted = false
  private var wasReady = false

  // From any loop.
  private let home = NIOLockedValueBox<SharedProcess?>(nil)
  /// Under which number its model is to be kept, and how much of it, if it is.
  private let kept = NIOLockedValueBox<(number: UInt64, bytes: ByteSize)?>(nil)
  private let taken = NIOLockedValueBox<ByteSize?>(nil)
  private let connections: DataConnections

  init(_ plan: WorkerPlan, loop: any EventLoop, observer: @escaping WorkerObserver) {
    id = plan.id
    self.plan = plan
    self.loop = loop
    self.observer = observer
    connections = DataConnections(pipelines: plan.pipelines)
  }

  private var process: SharedProcess? { home.withLockedValue { $0 } }

  /// What the model takes of the machine's memory, from its first request on. Where it is on a device that is not told
  /// apart from what else its process takes.
  var memory: ByteSize? { plan.device == nil ? taken.withLockedValue { $0 } : .zero }

  // The life of the model, on the loop.

  var hasEnded: Bool { state == .gone }

  /// It is to be loaded by this process, as soon as that takes models.
  func moved(into process: SharedProcess) { home.withLockedValue { $0 = process } }

  func processStarted(_ pid: Int32) {
    if state != .gone { observer(self, .started(pid: pid)) }
  }

  /// Its process takes models.
  func load() {
    guard state == .launching, let model = plan.model else { return }
    if isStopWanted { return end(HousedWorker.stopped) }
    state = .loading
    send(.load(model))
  }

  func received(_ report: WorkerReport) {
    switch report {
    case .progress(let fraction, let note): observer(self, .progressed(fraction: fraction, note: note))
    case .withdrawn(let request): observer(self, .withdrew(copy: request))
    case .ready(let seconds, let isRestored): becameReady(load: .seconds(seconds), isRestored: isRestored)
    case .measured(let bytes, let peak):
      taken.withLockedValue { $0 = ByteSize(bytes: bytes) }
      let kept = process?.overheadGrowth() ?? .zero
      observer(self, .measured(ByteSize(bytes: bytes), peak: ByteSize(bytes: max(bytes, peak)), kept: kept))
    case .failed(_, let message, _, let isOutOfMemory): failure = (message, isOutOfMemory)
    case .unloaded(let isKept):
      guard isKept, let kept = takeKept() else { return end("it was unloaded") }
      process?.leftDevice(kept.number, self)
      end("it makes room on its device", counted: kept.bytes)
    case .loading, .waiting: break
    }
  }

  /// 1: what is kept leaves its device at a GB a second or more.
  private static let keptBytesPerNanosecond: Int64 = 1

  /// 5 min: how long a load that nobody wants may go on for the sake of other models; as long as one may stall.
  private static let loadGrace = TimeAmount.minutes(5)

  private static let stopped = "it was stopped before it was loaded"

  private func becameReady(load: Duration, isRestored: Bool) {
    guard state == .loading else { return }
    if isStopWanted { return unload() }
    state = .ready
    wasReady = true
    let total = Duration.nanoseconds((NIODeadline.now() - created).nanoseconds)
    observer(self, .ready(spawn: max(.zero, total - load), load: load, isRestored: isRestored))
  }

  private func unload() {
    state = .unloading
    let process = process
    let kept = kept.withLockedValue { $0 }.flatMap { process?.isReserved($0.number) == true ? $0 : nil }
    send(.unload(keep: kept != nil))
    let copyTime = TimeAmount.nanoseconds((kept?.bytes.bytes ?? 0) / HousedWorker.keptBytesPerNanosecond)
    loop.assumeIsolated().scheduleTask(in: LocalWorker.stopGrace + copyTime) { [self] in
      if state == .unloading { process?.kill("the model '\(modelName)' did not unload") }
    }
  }

  private var modelName: String { plan.model?.name ?? "" }

  /// - Parameter counted: what the process has come to take for it and that counts already.
  func end(_ description: String, hasRunOutOfMemory: Bool = false, counted: ByteSize = .zero) {
    guard state != .gone else { return }
    state = .gone
    if let kept = takeKept() { process?.giveUp(kept.number) }
    let growth = process?.left(self) ?? .zero
    let kept = ByteSize(bytes: growth.bytes - counted.bytes)
    if wasReady {
      observer(self, .exited(description: description, kept: kept))
    } else {
      let reason = failure?.reason ?? (isStopWanted ? HousedWorker.stopped : description)
      observer(self, .failedToStart(reason: reason, hasRunOutOfMemory: failure?.hasRunOutOfMemory ?? hasRunOutOfMemory))
    }
  }

  var canBeKept: Bool { process?.carrier.keepsModels.withLockedValue { $0 } ?? false }

  func keep(_ bytes: ByteSize) -> Bool {
    guard let number = process?.reserve(bytes, for: self) else { return false }
    kept.withLockedValue { $0 = (number, bytes) }
    return true
  }

  private func takeKept() -> (number: UInt64, bytes: ByteSize)? {
    kept.withLockedValue { kept in
      defer { kept = nil }
      return kept
    }
  }

  func stop() {
    loop.execute { [self] in
      switch state {
      case .launching: end(HousedWorker.stopped)
      case .loading: stopLoading()
      case .ready: unload()
      case .unloading, .gone: break
      }
    }
  }

  /// A load cannot be broken off without breaking the other models off as well: it goes on where there are any.
  private func stopLoading() {
    guard !isStopWanted else { return }
    isStopWanted = true
    process?.endIfUnwanted()
    loop.assumeIsolated().scheduleTask(in: HousedWorker.loadGrace) { [self] in
      if state == .loading { process?.kill("the load of '\(modelName)' had to be ended") }
    }
  }

  /// Whether it loads and nobody wants it to.
  var isUnwantedLoad: Bool { state == .loading && isStopWanted }

  func kill() {
    loop.execute { [self] in
      switch state {
      case .launching, .loading, .ready, .unloading:
        // Without a process there is nothing else to end.
        guard let process else { return end(HousedWorker.stopped) }
        process.kill("the model '\(modelName)' had to be ended")
      case .gone: break
      }
    }
  }

  // Requests, from any loop.

  func connection(on loop: any EventLoop) -> WorkerLink { connections.take(on: loop) }

  func recycle(_ connection: WorkerConnection) { connections.recycle(connection) }

  func connect(on loop: any EventLoop) -> EventLoopFuture<WorkerConnection> {
    connections.open(on: loop) { self.send(.connect, descriptors: [$0]) }
  }

  func cancel(request: String) { loop.execute { [self] in send(.cancel(request: request)) } }

  func withdraw(copy: String) { loop.execute { [self] in send(.withdraw(request: copy)) } }

  @discardableResult
  private func send(_ command: WorkerCommand, descriptors: [Int32] = []) -> Bool {
    process?.carrier.send(command, worker: id, descriptors: descriptors) ?? false
  }
}
