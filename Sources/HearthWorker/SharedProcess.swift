import HearthCore
import HearthWorkerProtocol
import NIOConcurrencyHelpers
import NIOCore

/// A process that many models of one version share. Used on the host's loop, where nothing else is said.
final class SharedProcess: @unchecked Sendable {
  /// 10 s: how long it is kept without a model, for the next.
  private static let lingerTime = TimeAmount.seconds(10)

  let carrier: LocalWorker
  private let loop: any EventLoop
  private var pid: Int32?
  /// Why it was ended, if it was.
  private var killReason: String?
  private var lastLeft = NIODeadline.now()
  private let changed: () -> Void
  /// Counts the models that the host has kept.
  private let nextNumber: () -> UInt64
  private let keeping = NIOLockedValueBox(Keeping())
  private let measures = NIOLockedValueBox(Measures())
  /// Changed on `loop` only; read by those who measure it as well.
  private let housed = NIOLockedValueBox<[WorkerID: HousedWorker]>([:])

  /// - Parameter changed: called when a model was loaded or has gone.
  init(
    _ carrier: LocalWorker, loop: any EventLoop, nextNumber: @escaping () -> UInt64, changed: @escaping () -> Void
  ) {
    self.carrier = carrier
    self.nextNumber = nextNumber
    self.loop = loop
    self.changed = changed
    carrier.modelReported = { [weak self] worker, report in
      self?.worker(worker)?.received(report)
      if case .ready = report { changed() }
    }
    carrier.whenReady { [weak self] in
      guard let self else { return }
      _ = overhead
      for worker in workers { worker.load() }
    }
  }

  // Models that are kept without their device.

  /// Makes a note of a model that is to be kept, and counts its bytes from now on; nil where one of the same is kept.
  /// From any thread.
  func reserve(_ bytes: ByteSize, for worker: HousedWorker) -> UInt64? {
    guard let model = worker.plan.model else { return nil }
    return keeping.withLockedValue { keeping in
      guard !keeping.isRetired, !keeping.models.contains(where: { $0.model == model }) else { return nil }
      let number = nextNumber()
      keeping.models.append(
        KeptModel(
          function: carrier.plan.function, deploy: carrier.plan.deploy, model: model, device: carrier.plan.device,
          bytes: bytes, number: number))
      return number
    }
  }

  /// A model was not kept after all.
  func giveUp(_ number: UInt64) {
    keeping.withLockedValue { $0.models.removeAll { $0.number == number } }
    if isEmpty { linger() }
  }

  /// A model has left its device. If it was thrown out or asked for again meanwhile, what is kept is of no use.
  func leftDevice(_ number: UInt64, _ worker: HousedWorker) {
    let isWanted = keeping.withLockedValue { keeping in
      guard let place = keeping.models.firstIndex(where: { $0.number == number }) else { return false }
      keeping.models[place].isThere = true
      return true
    }
    if !isWanted, let model = worker.plan.model { carrier.send(.discard(model)) }
  }

  /// Lets go of a kept model, or of one that is about to be.
  func discard(_ model: KeptModel) {
    if kept.first(where: { $0.number == model.number })?.isThere == true { carrier.send(.discard(model.model)) }
    giveUp(model.number)
    changed()
  }

  func discardAll() { for model in kept { discard(model) } }

  /// Its version is served no more.
  func retire() {
    keeping.withLockedValue { $0.isRetired = true }
    discardAll()
    if isEmpty { kill("its version is served no more") }
  }

  /// From any thread.
  var kept: [KeptModel] { keeping.withLockedValue(\.models) }

  func isReserved(_ number: UInt64) -> Bool { kept.contains { $0.number == number } }

  /// Whether models can be moved in.
  var isOpen: Bool { killReason == nil && !carrier.hasEnded }

  func take(_ worker: HousedWorker) {
    housed.withLockedValue { $0[worker.id] = worker }
    // If it is kept, it is restored.
    keeping.withLockedValue { $0.models.removeAll { $0.model == worker.plan.model } }
    worker.moved(into: self)
    if let pid { worker.processStarted(pid) }
    if carrier.isWaiting { worker.load() }
  }

  /// A model is gone. Returns what the process takes more beside its models than it did before.
  func left(_ worker: HousedWorker) -> ByteSize {
    housed.withLockedValue { $0[worker.id] = nil }
    changed()
    if isEmpty { linger() } else { endIfUnwanted() }
    return overheadGrowth()
  }

  /// Ends it if all that it has to do is to load what nobody wants any more.
  func endIfUnwanted() {
    if kept.isEmpty, !workers.isEmpty, workers.allSatisfy(\.isUnwantedLoad) {
      kill("nobody wants what it loads")
    }
  }

  private func linger() {
    lastLeft = .now()
    loop.assumeIsolated().scheduleTask(in: SharedProcess.lingerTime) { [self] in
      guard isEmpty, kept.isEmpty, NIODeadline.now() - lastLeft >= SharedProcess.lingerTime else { return }
      kill("it had no model any more")
    }
  }

  /// Ends the process, and with it every model in it.
  func kill(_ reason: String) {
    guard killReason == nil else { return }
    killReason = reason
    carrier.kill()
  }

  func happened(_ event: WorkerEvent) {
    switch event {
    case .started(let pid):
      self.pid = pid
      for worker in workers { worker.processStarted(pid) }
    case .progressed(let fraction, let note):
      for worker in workers { worker.received(.progress(fraction: fraction, note: note)) }
    case .failedToStart(let reason, let hasRunOut):
      let text = killReason.map { "the process that it shared was ended: \($0)" } ?? reason
      for worker in workers { worker.end(text, hasRunOutOfMemory: hasRunOut) }
    case .exited(let reason, _):
      for worker in workers { worker.end(reason) }
    case .ready, .measured, .withdrew: break
    }
  }

  // From any thread.

  private func worker(_ id: String) -> HousedWorker? {
    WorkerID(id).flatMap { id in housed.withLockedValue { $0[id] } }
  }

  private var workers: [HousedWorker] { housed.withLockedValue { Array($0.values) } }

  var isEmpty: Bool { housed.withLockedValue(\.isEmpty) }

  /// What it takes beside its models. Reads files, for long where it is large.
  var overhead: ByteSize? {
    let models = workers
    guard let pid = carrier.processNumber, let (own, sharing) = ProcessMemory.sharing(of: pid) else { return nil }
    return measures.withLockedValue { measures in
      measures.sharing = sharing.bytes
      return measures.note(own.bytes, models)
    }
  }

  /// By how much what it takes beside its models has grown; read in no time, and so taken for what it shares with
  /// others as much as before.
  func overheadGrowth() -> ByteSize {
    let models = workers
    guard let pid = carrier.processNumber, let resident = ProcessMemory.resident(of: pid) else { return .zero }
    return measures.withLockedValue { measures in
      let last = measures.overhead
      return ByteSize(bytes: measures.note(resident.bytes - measures.sharing, models).bytes - last)
    }
  }

  private struct Keeping {
    var models: [KeptModel] = []
    /// Whether none is kept any more.
    var isRetired = false
  }

  private struct Measures {
    /// Bytes that it took before its first model.
    var base: Int64?
    /// Bytes that it takes beside its models, as last known.
    var overhead: Int64 = 0
    /// Bytes of its resident memory that count with other processes.
    var sharing: Int64 = 0

    mutating func note(_ bytes: Int64, _ models: [HousedWorker]) -> ByteSize {
      let base = base ?? bytes
      self.base = base
      // What a load may take is reserved for it already, so that this and what is granted is never less than it takes.
      overhead = max(base, models.reduce(bytes) { $0 - ($1.memory ?? $1.plan.reserved).bytes })
      return ByteSize(bytes: overhead)
    }
  }
}
