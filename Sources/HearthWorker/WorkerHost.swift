import HearthCore
import HearthWorkerProtocol
import NIOCore

/// Where workers run: this machine now, other machines later. Starting, stopping and reaching workers goes through
/// here, and what happens to them comes back as events.
public protocol WorkerHost: Sendable {
  /// Starts a worker. `observer` gets its events, on a loop of the host's own, until `exited` or `failedToStart`.
  func start(_ plan: WorkerPlan, observer: @escaping WorkerObserver) -> any WorkerHandle
  /// What it has beside the machine's own processors and memory.
  var devices: [Device] { get }
  /// What is in use of a device's memory, whoever uses it; nil where nobody can say.
  func used(of device: Device) -> ByteSize?
  /// What a process has of it; nil where nobody can say.
  func used(of device: Device, by pid: Int32) -> ByteSize?
  /// What the host's own processes take, workers left out. Reads files.
  var overhead: HostOverhead { get }
  /// Says what to call, from any thread, when what its own processes take has changed.
  func whenOverheadChanges(_ action: @escaping @Sendable () -> Void)
  /// Models that are kept in the machine's memory, those first that left their device first.
  var keptModels: [KeptModel] { get }
  /// Lets go of a model that is kept.
  func discard(_ model: KeptModel)
  /// A version is served no more: nothing of it is kept.
  func forget(_ function: FunctionName, deploy: Int)
  /// Ends all processes without a model, and makes none for a minute; lets go of all models that are kept. Their memory
  /// is needed.
  func dropSpares()
}

/// A model that has left its device and is kept in the machine's memory.
public struct KeptModel: Hashable, Sendable {
  public let function: FunctionName
  public let deploy: Int
  public let model: WorkerPlan.Model
  public let device: Device?
  /// What it takes, as far as that is known: what it took on its device.
  public let bytes: ByteSize
  /// Counts those that were kept.
  let number: UInt64
  /// Whether it has left its device.
  var isThere = false
}

/// What a host's own processes take.
public struct HostOverhead: Sendable {
  /// Those that workers are forked from.
  public var zygotes: ByteSize
  /// What processes that models share take beside them.
  public var shared: ByteSize
  /// Those that are kept for the next model, and models that are kept for their next request.
  public var spares: ByteSize

  public init(zygotes: ByteSize, shared: ByteSize, spares: ByteSize) {
    self.zygotes = zygotes
    self.shared = shared
    self.spares = spares
  }
}

/// Takes what happens to a worker.
public typealias WorkerObserver = @Sendable (any WorkerHandle, WorkerEvent) -> Void

/// What a host is told of a worker to start.
public struct WorkerPlan: Sendable {
  public enum Entry: Sendable {
    case handler(String)
    case command([String])
  }

  /// The model that a worker of a function of many models is to load.
  public typealias Model = WorkerLaunch.Model

  public var id: WorkerID
  public var function: FunctionName
  public var version: String
  /// Counts the deploys of a gateway: what one prepared is not for the next, even of the same version.
  public var deploy = 0
  public var bundle: String
  public var entry: Entry
  public var environment: PythonEnvironment
  public var preload: [String]
  public var forks: Bool
  public var slots: Int
  public var variables: [String: String]
  public var config: String
  public var network: Bool
  public var memory: ByteSize?
  public var temporary: ByteSize
  public var log: FunctionLog
  /// How it gathers requests; nil where it serves each by itself.
  public var batching: WorkerLaunch.Batching?
  /// The model that it is to load; nil where its function is not one of many.
  public var model: Model?
  /// The device that is its; nil where it needs none.
  public var device: Device?
  /// What it may take of the machine's memory until it is measured.
  public var reserved = ByteSize.zero
  /// Whether the models of its version share a process.
  public var isShared = false
  /// Further folders that it is to see: those of models that are no part of the bundle.
  public var visible: [String] = []

  /// Whether the worker takes one request after another from a connection and answers them in order: the runtime's
  /// workers with one slot do. Nobody knows it of a program.
  public var pipelines: Bool {
    if case .handler = entry { slots == 1 } else { false }
  }

  public init(
    id: WorkerID, function: FunctionName, version: String, bundle: String, entry: Entry,
    environment: PythonEnvironment, preload: [String], forks: Bool, slots: Int, variables: [String: String],
    config: String, network: Bool, memory: ByteSize?, temporary: ByteSize, log: FunctionLog, model: Model? = nil
  ) {
    self.id = id
    self.function = function
    self.version = version
    self.bundle = bundle
    self.entry = entry
    self.environment = environment
    self.preload = preload
    self.forks = forks
    self.slots = slots
    self.variables = variables
    self.config = config
    self.network = network
    self.memory = memory
    self.temporary = temporary
    self.log = log
    self.model = model
  }
}

extension WorkerPlan {
  /// Its author's variables, and what it sees of the machine's GPUs: its own, or none.
  var environmentVariables: [String: String] {
    variables.merging(["CUDA_VISIBLE_DEVICES": device?.visible ?? ""]) { _, own in own }
  }
}

/// What happens to a worker.
public enum WorkerEvent: Sendable {
  case started(pid: Int32)
  case progressed(fraction: Double?, note: String?)
  ///
  /// `isRestored`: its model was kept in the machine's memory, and is back on its device.
  case ready(spawn: Duration, load: Duration, isRestored: Bool)
  /// It takes so much memory, and at most took `peak` while it was loaded, where the worker itself tells it. `kept` is
  /// what a process that it shares with others has come to take more beside its models, or less if negative.
  case measured(ByteSize, peak: ByteSize, kept: ByteSize)
  /// A copy of a request that was sent ahead comes back unbegun.
  case withdrew(copy: String)
  /// It never became ready; `reason` is fit for callers.
  case failedToStart(reason: String, hasRunOutOfMemory: Bool)
  /// It was ready and has ended; `kept` as with `measured`: memory that was not given back.
  case exited(description: String, kept: ByteSize)
}

/// What a worker has for a request of a loop.
public enum WorkerLink {
  /// An idle connection, or, where the worker answers in order, one with requests before this one.
  case ready(WorkerConnection)
  /// The worker answers in order, and its connection takes nothing before the request it has is done with.
  case heldUp
  /// No connection is open: one more can be.
  case none
}

/// A worker as the dispatcher holds it.
public protocol WorkerHandle: AnyObject, Sendable {
  var id: WorkerID { get }
  /// What the worker's processes take of the machine's memory now: their proportional set size (proc(5),
  /// smaps_rollup); where it shares one with others, what it says itself. Nil while it is not known. Reads files.
  var memory: ByteSize? { get }
  /// The data connection on this loop that takes a request now. Call on the loop.
  func connection(on loop: any EventLoop) -> WorkerLink
  /// Opens a further data connection.
  func connect(on loop: any EventLoop) -> EventLoopFuture<WorkerConnection>
  /// Gives a connection back for the next request. Call on its loop.
  func recycle(_ connection: WorkerConnection)
  /// Raises `Cancelled` in the author's code that serves this request.
  func cancel(request: String)
  /// Asks for a copy of a request back that was sent ahead; `withdrew` follows unless it has been begun.
  func withdraw(copy: String)
  /// Whether its model can be kept in the machine's memory without its device.
  var canBeKept: Bool { get }
  /// Has its model kept when it is stopped, and counts it among those from now on. False where that is of no use.
  func keep(_ bytes: ByteSize) -> Bool
  /// Asks an idle worker, or one that loads, to end. It is killed if it has not within five seconds, or a second more
  /// for each GiB that is to be kept.
  func stop()
  func kill()
}
