import Foundation
import HearthCore
import HearthWorkerProtocol
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// One worker process of this machine.
final class LocalWorker: WorkerHandle, @unchecked Sendable {
  /// What its process is for.
  enum Role {
    case worker
    /// It waits to be taken over by a worker with a model.
    case spare
    /// It waits for models, which share it.
    case shared
  }

  private enum State {
    case launching
    /// The process runs and loads.
    case starting
    case ready
    case gone
  }

  /// 5 s: an idle worker has nothing to finish, so one that has not ended by then never will.
  static let stopGrace = TimeAmount.seconds(5)
  private static let signalNames: [Int32: String] = [
    4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM",
    24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
  ]

  let id: WorkerID
  let plan: WorkerPlan
  private let dataFolder: String
  private let loop: any EventLoop
  private let observer: WorkerObserver
  private let created = NIODeadline.now()

  // On `loop` only.
  /// What its zygote knows its process by: its own id, or that of the spare it took over.
  private(set) var processID: WorkerID
  private(set) var directory: String
  private(set) var zygote: Zygote?
  private var state = State.launching
  private var failure: String?
  private var hasRunOutOfMemory = false
  private(set) var isStopWanted = false
  /// Whether it was ready and told to stop.
  private var isStopping = false
  private var readyActions: [() -> Void] = []
  private var goneActions: [() -> Void] = []
  private var processBegan = NIODeadline.now()
  private let role: Role
  /// Whether its process waits to be told which model to load.
  private(set) var isWaiting = false
  /// Takes what is said of the models that share its process.
  var modelReported: (String, WorkerReport) -> Void = { _, _ in }
  /// The worker that has taken this spare over.
  private var successor: LocalWorker?

  // From any loop.
  private let control = NIOLockedValueBox<ControlChannel?>(nil)
  private let connections: DataConnections
  private let pid = NIOLockedValueBox<Int32?>(nil)
  /// Whether its models can be kept without their device.
  let keepsModels = NIOLockedValueBox(false)

  init(
    _ plan: WorkerPlan, directory: String, dataFolder: String, loop: any EventLoop, role: Role = .worker,
    observer: @escaping WorkerObserver
  ) {
    id = plan.id
    processID = plan.id
    self.role = role
    self.plan = plan
    self.directory = directory
    self.dataFolder = dataFolder
    self.loop = loop
    self.observer = observer
    connections = DataConnections(pipelines: plan.pipelines)
  }

  var memory: ByteSize? { processNumber.flatMap(ProcessMemory.proportional) }

  var processNumber: Int32? { pid.withLockedValue { $0 } }

  // Starting and ending, on the loop.

  var hasEnded: Bool { if case .gone = state { true } else { false } }

  func whenReady(_ action: @escaping () -> Void) { readyActions.append(action) }

  func whenGone(_ action: @escaping () -> Void) {
    if case .gone = state { action() } else { goneActions.append(action) }
  }

  func launch(from zygote: Zygote) {
    guard case .launching = state else { return }
    if isStopWanted { return fail("it was stopped before it ran") }
    let forkable: Bool
    switch zygote.state {
    case .starting: preconditionFailure("a launch waits for its zygote")
    case .ready(let canFork): forkable = canFork
    case .ended(let reason): return fail(reason)
    }
    self.zygote = zygote
    do {
      try FileManager.default.createDirectory(atPath: "\(directory)/tmp", withIntermediateDirectories: true)
      try launch(from: zygote, fork: forkable && plan.forks)
    } catch {
      fail((error as? HearthError)?.message ?? "its process could not be started")
    }
  }

  private func launch(from zygote: Zygote, fork: Bool) throws {
    let sockets = try DescriptorPair.sockets()
    defer { close(sockets.theirs) }
    let output: DescriptorPair
    do {
      output = try DescriptorPair.pipe()
    } catch {
      close(sockets.ours)
      throw error
    }
    defer { close(output.theirs) }
    LogPipe.open(output.ours, on: loop, log: plan.log, worker: { [self] in successor?.id ?? id })
    try ControlChannel.open(
      sockets.ours, on: loop, received: { [self] in (successor ?? self).received($0) },
      closed: { [self] in (successor ?? self).controlClosed() }
    ).whenSuccess { [self] channel in (successor ?? self).control.withLockedValue { $0 = channel } }
    guard zygote.start(message(fork: fork), descriptors: [sockets.theirs, output.theirs, output.theirs]) else {
      throw HearthError(.internalError, "its zygote did not answer")
    }
  }

  private func message(fork: Bool) -> WorkerLaunch {
    var handler: String?
    var command: [String]?
    switch plan.entry {
    case .handler(let text): handler = text
    case .command(let arguments): command = arguments
    }
    return WorkerLaunch(
      worker: id.description, function: plan.function.rawValue, version: plan.version, bundle: plan.bundle,
      handler: handler, command: command, python: plan.environment.python, fork: fork, slots: plan.slots,
      environment: plan.environmentVariables, config: plan.config, directory: directory, hidden: dataFolder,
      network: plan.network,
      memoryBytes: plan.memory?.bytes, temporaryBytes: plan.temporary.bytes,
      model: plan.model, awaitsModel: role != .worker, isShared: role == .shared, visible: plan.visible,
      device: plan.device.map { WorkerLaunch.Device(name: $0.workerName, bandwidth: $0.bandwidth) },
      batching: plan.batching)
  }

  /// Ends a launch that never got a process, or whose process is of no use.
  func fail(_ reason: String) {
    guard case .launching = state else { return }
    failure = reason
    end(description: reason)
  }

  func processStarted(_ pid: Int32) {
    self.pid.withLockedValue { $0 = pid }
    if case .gone = state { return }
    observer(self, .started(pid: pid))
    // The worker's own word that it is ready may have been quicker.
    guard case .launching = state else { return }
    state = .starting
    processBegan = .now()
    if case .command = plan.entry { awaitSocket(attempt: 0) }
    if isStopWanted { kill() }
  }

  func processExited(status: Int32?, signal: Int32?) {
    let how =
      signal.map { "its process was ended by signal \($0)\(LocalWorker.signalNames[$0].map { " (\($0))" } ?? "")" }
      ?? "its process exited with status \(status ?? -1)"
    end(description: how)
  }

  /// Ends what its process started. Its zygote does this as a worker ends; but it may be gone, or be ended first, and
  /// the kernel ends its workers only.
  func endGroup() {
    if let pid = processNumber { Glibc.kill(-pid, SIGKILL) }
  }

  /// Takes over a spare's process, which loads this worker's model as soon as it waits for one. Call instead of
  /// `launch`.
  func takeOver(_ spare: LocalWorker) {
    zygote = spare.zygote
    processID = spare.processID
    directory = spare.directory
    spare.successor = self
    // Nothing of it is left to end.
    spare.state = .gone
    control.withLockedValue { $0 = spare.control.withLockedValue { $0 } }
    if let pid = spare.pid.withLockedValue({ $0 }) { processStarted(pid) }
    if spare.isWaiting { loadModel() }
  }

  /// Its process has made the author's class.
  private func becomeWaiting() {
    guard role != .worker else { return loadModel() }
    isWaiting = true
    for action in readyActions { action() }
    readyActions = []
  }

  /// Whether its process runs, and has not failed at anything yet.
  var mayBeTakenOver: Bool { zygote != nil && failure == nil && !hasEnded }

  /// Tells a process that waits for it which model to load.
  private func loadModel() {
    guard let model = plan.model else { return }
    if isStopWanted { return kill() }
    send(.load(model), worker: id)
  }

  /// Tells its process something.
  ///
  /// - Parameter worker: which of the models that share it is meant, or what it goes by from now on.
  @discardableResult
  func send(_ command: WorkerCommand, worker: WorkerID? = nil, descriptors: [Int32] = []) -> Bool {
    let message = Addressed(command, worker: worker?.description)
    return control.withLockedValue { $0 }?.send(message, descriptors: descriptors) ?? false
  }

  private func end(description: String) {
    let wasReady: Bool
    switch state {
    case .gone: return
    case .ready: wasReady = true
    case .launching, .starting: wasReady = false
    }
    state = .gone
    control.withLockedValue { $0 }?.close()
    try? FileManager.default.removeItem(atPath: directory)
    observer(
      self,
      wasReady
        ? .exited(description: description, kept: .zero)
        : .failedToStart(reason: failure ?? description, hasRunOutOfMemory: hasRunOutOfMemory))
    for action in goneActions { action() }
    goneActions = []
  }

  private func becomeReady(load: Duration) {
    guard case .starting = state else { return }
    if isStopWanted { return kill() }
    state = .ready
    let total = NIODeadline.now() - created
    observer(self, .ready(spawn: max(.zero, .nanoseconds(total.nanoseconds) - load), load: load, isRestored: false))
    for action in readyActions { action() }
    readyActions = []
  }

  private func received(_ line: ByteBuffer) {
    guard let report = try? ControlCodec.decode(Addressed<WorkerReport>.self, from: line) else { return }
    if let worker = report.worker { return modelReported(worker, report.message) }
    switch report.message {
    case .loading: observer(self, .progressed(fraction: nil, note: nil))
    case .waiting(let keeps):
      keepsModels.withLockedValue { $0 = keeps }
      becomeWaiting()
    case .progress(let fraction, let note): observer(self, .progressed(fraction: fraction, note: note))
    case .withdrawn(let request): observer(self, .withdrew(copy: request))
    case .measured(let bytes, let peak):
      // Of the machine's memory the kernel knows better.
      if plan.device != nil {
        observer(self, .measured(ByteSize(bytes: bytes), peak: ByteSize(bytes: max(bytes, peak)), kept: .zero))
      }
    case .unloaded: break
    case .ready(let loadSeconds, _):
      // The zygote's word of the start and this one come by different sockets.
      if case .launching = state { state = .starting }
      becomeReady(load: .seconds(loadSeconds))
    case .failed(_, let message, _, let isOutOfMemory):
      failure = message
      hasRunOutOfMemory = isOutOfMemory
    }
  }

  /// A handler's process is gone or hangs half-dead; its zygote says which. A command closes its end at once.
  ///
  /// Of a worker that was told to stop nothing more is needed but its memory, which is free before its sockets are
  /// closed; to hear of its end from the zygote takes milliseconds more.
  private func controlClosed() {
    if case .command = plan.entry { return }
    if isStopping, let pid = processNumber, ProcessMemory.isFree(pid) {
      endGroup()
      return end(description: "it was stopped")
    }
    loop.assumeIsolated().scheduleTask(in: .seconds(1)) { [self] in
      if case .gone = state { return }
      zygote?.signal(processID, SIGKILL)
    }
  }

  // A command's socket.

  private var socketPath: String { "\(directory)/http.sock" }

  /// Tries the socket until something listens: each millisecond at first, then less often.
  private func awaitSocket(attempt: Int) {
    guard case .starting = state else { return }
    if LocalWorker.accepts(socketPath) {
      return becomeReady(load: .nanoseconds((NIODeadline.now() - processBegan).nanoseconds))
    }
    let delay = TimeAmount.milliseconds(min(50, 1 + Int64(attempt) / 4))
    loop.assumeIsolated().scheduleTask(in: delay) { [self] in awaitSocket(attempt: attempt + 1) }
  }

  private static func accepts(_ path: String) -> Bool {
    guard access(path, F_OK) == 0, let address = try? SocketAddress(unixDomainSocketPath: path) else { return false }
    // Never blocking: a program that accepts nothing must not hold up the loop.
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    let descriptor = socket(AF_UNIX, kind, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let result = address.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
    return result == 0 || errno == EAGAIN
  }

  // Data connections, from any loop.

  func connection(on loop: any EventLoop) -> WorkerLink { connections.take(on: loop) }

  func recycle(_ connection: WorkerConnection) { connections.recycle(connection) }

  func connect(on loop: any EventLoop) -> EventLoopFuture<WorkerConnection> {
    switch plan.entry {
    case .command: connections.open(on: loop, path: socketPath)
    case .handler: connections.open(on: loop) { self.send(.connect, descriptors: [$0]) }
    }
  }

  // A worker whose control socket is full may block the sender for a while: never a loop with clients.
  func cancel(request: String) { tell(.cancel(request: request)) }

  func withdraw(copy: String) { tell(.withdraw(request: copy)) }

  private func tell(_ command: WorkerCommand) {
    loop.execute { [self] in send(command) }
  }

  let canBeKept = false

  func keep(_ bytes: ByteSize) -> Bool { false }

  func stop() {
    loop.execute { [self] in
      switch state {
      case .gone: return
      case .launching: isStopWanted = true
      case .starting: zygote?.signal(processID, SIGKILL)
      case .ready:
        isStopping = true
        if case .command = plan.entry {
          zygote?.signal(processID, SIGTERM)
        } else {
          send(.drain)
        }
        loop.assumeIsolated().scheduleTask(in: LocalWorker.stopGrace) { [self] in
          if case .ready = state { zygote?.signal(processID, SIGKILL) }
        }
      }
    }
  }

  func kill() {
    loop.execute { [self] in
      isStopWanted = true
      if case .gone = state { return }
      zygote?.signal(processID, SIGKILL)
    }
  }
}
