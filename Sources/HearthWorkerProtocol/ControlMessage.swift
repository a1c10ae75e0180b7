import HearthCore

/// A message on a control socket: one JSON object a line, UTF-8, at most `lengthMax` bytes.
///
/// docs/worker-protocol.md describes every message; `runtime/tests/golden` holds one example of each, which the Swift
/// and the Python tests both read.
public enum ControlMessage {
  /// 1 MiB: a traceback or a function's configuration fits many times over.
  public static let lengthMax = 1 << 20
}

/// What the gateway tells a zygote.
public enum ZygoteCommand: Hashable, Sendable {
  /// Start a worker. Three descriptors travel with it: the worker's control socket, and its log pipe's writing end
  /// twice over (stdout, stderr).
  case start(WorkerLaunch)
  /// Send a signal to a worker's process group, if the worker still runs.
  case signal(worker: String, number: Int32)
}

/// What a zygote reports.
public enum ZygoteReport: Hashable, Sendable {
  /// The zygote has imported its modules. `threads` counts those left behind by an import; `forkable` is false when
  /// one of them makes a fork unsafe, and workers are then started afresh. `missing` maps each isolation feature that
  /// this machine lacks to the reason.
  case ready(pid: Int32, threads: Int, forkable: Bool, warning: String?, missing: [String: String])
  /// A preload failed; the zygote ends.
  case failed(reason: String)
  case started(worker: String, pid: Int32)
  /// A worker's process has ended, by exit status or by signal.
  case exited(worker: String, status: Int32?, signal: Int32?, peakBytes: Int64)
}

/// What the gateway tells a worker.
public enum WorkerCommand: Hashable, Sendable {
  /// One more data connection; its descriptor travels with the message.
  case connect
  /// The client of this request has left, or its deadline has passed.
  case cancel(request: String)
  /// Give this request back unless it has been begun: it was sent ahead and waits behind one that takes long.
  case withdraw(request: String)
  /// Load this model: the worker was started without one, and waits.
  case load(WorkerLaunch.Model)
  /// Finish what this model has begun and let go of it, or, to `keep` it, of what it has on its device: said to a
  /// process that many models share.
  case unload(keep: Bool)
  /// Let go of a model that was kept.
  case discard(WorkerLaunch.Model)
  /// Finish what is in flight and exit.
  case drain
}

/// What a worker reports.
public enum WorkerReport: Hashable, Sendable {
  /// The process runs and has begun to load the function.
  case loading
  /// The author's class is made, and waits to be told which model to load; `keeps` says whether it can take one off its
  /// device and bring it back.
  case waiting(keeps: Bool)
  /// The load goes on; `fraction` is from 0 to 1 where the function knows it.
  case progress(fraction: Double?, note: String?)
  /// The function is loaded and takes requests. `loadSeconds` is the time in the author's code; `isRestored` whether
  /// its model had been kept.
  case ready(loadSeconds: Double, isRestored: Bool)
  /// The request was not begun and will not be: no answer to it follows. Said only in answer to `withdraw`.
  case withdrawn(request: String)
  /// What a model takes, and at most took while it was loaded: as its author says; or, of a process that many share,
  /// what that grew by at its load and its first request.
  case measured(bytes: Int64, peakBytes: Int64)
  /// A model is gone from a process that many share, or `isKept` there without what it had on its device. Memory is
  /// given back as far as that can be.
  case unloaded(isKept: Bool)
  /// The load failed, for want of memory or otherwise. `message` is for callers, `traceback` for the function's log.
  case failed(type: String, message: String, traceback: String, isOutOfMemory: Bool)
}

/// A message that may say which worker it concerns: in a process that many models share, that of one of them; else the
/// id that a worker goes by from now on.
public struct Addressed<Message: ControlMessageCoding & Hashable>: Hashable, Sendable {
  public var worker: String?
  public var message: Message

  public init(_ message: Message, worker: String?) {
    self.worker = worker
    self.message = message
  }
}

/// Everything a zygote needs to know to start one worker.
public struct WorkerLaunch: Codable, Hashable, Sendable {
  /// One model of a function that has many.
  public struct Model: Codable, Hashable, Sendable {
    public var name: String
    /// The file or folder of its weights.
    public var path: String
    /// The size of its files.
    public var bytes: Int64

    public init(name: String, path: String, bytes: Int64) {
      self.name = name
      self.path = path
      self.bytes = bytes
    }
  }

  /// Where a worker's model is to be.
  public struct Device: Codable, Hashable, Sendable {
    /// As the worker's libraries know it: `cuda:0`, or that of a simulated one.
    public var name: String
    /// Bytes a second by which a simulated one takes weights; nil: as fast as it goes.
    public var bandwidth: Int64?

    public init(name: String, bandwidth: Int64? = nil) {
      self.name = name
      self.bandwidth = bandwidth
    }
  }

  /// How requests are gathered for the author's code.
  public struct Batching: Codable, Hashable, Sendable {
    /// The most in one batch.
    public var size: Int
    /// How long the first of a batch waits for others.
    public var waitSeconds: Double

    public init(size: Int, waitSeconds: Double) {
      self.size = size
      self.waitSeconds = waitSeconds
    }

    enum CodingKeys: String, CodingKey {
      case size
      case waitSeconds = "wait_seconds"
    }
  }

  public var worker: String
  public var function: String
  public var version: String
  /// The unpacked bundle, read-only.
  public var bundle: String
  /// `handler.py:ClassName`, or nil for a `command`.
  public var handler: String?
  /// The program and its arguments, or nil for a `handler`.
  public var command: [String]?
  /// The interpreter that runs a handler when it is not forked from the zygote.
  public var python: String?
  /// Whether the worker is forked from the zygote as it is, or starts a fresh interpreter.
  public var fork: Bool
  /// Requests taken at a time.
  public var slots: Int
  /// How they are gathered; nil where each is served by itself.
  public var batching: Batching?
  public var environment: [String: String]
  /// The author's `config`, as JSON text.
  public var config: String
  /// A private folder on the gateway's side in which a `command` creates its socket.
  public var directory: String
  /// The gateway's data folder, of which the worker sees its bundle, its environment and its own folder only.
  public var hidden: String
  public var network: Bool
  /// Most bytes of private memory; nil is no limit.
  public var memoryBytes: Int64?
  /// Size of the private temporary folder.
  public var temporaryBytes: Int64
  /// The model to load; nil where the function is not one of many models.
  public var model: Model?
  /// Whether the worker is told later which model to load.
  public var awaitsModel = false
  /// Whether it is told of many models, one after another, which share its process.
  public var isShared = false
  /// Further folders that it is to see, below the hidden one.
  public var visible: [String] = []
  /// Nil where it needs none.
  public var device: Device?

  public init(
    worker: String, function: String, version: String, bundle: String, handler: String?, command: [String]?,
    python: String?, fork: Bool, slots: Int, environment: [String: String], config: String, directory: String,
    hidden: String,
    network: Bool, memoryBytes: Int64?, temporaryBytes: Int64, model: Model? = nil, awaitsModel: Bool = false,
    isShared: Bool = false, visible: [String] = [], device: Device? = nil, batching: Batching? = nil
  ) {
    self.worker = worker
    self.function = function
    self.version = version
    self.bundle = bundle
    self.handler = handler
    self.command = command
    self.python = python
    self.fork = fork
    self.slots = slots
    self.batching = batching
    self.environment = environment
    self.config = config
    self.directory = directory
    self.hidden = hidden
    self.network = network
    self.memoryBytes = memoryBytes
    self.temporaryBytes = temporaryBytes
    self.model = model
    self.awaitsModel = awaitsModel
    self.isShared = isShared
    self.visible = visible
    self.device = device
  }

  enum CodingKeys: String, CodingKey {
    case worker, function, version, bundle, handler, command, python, fork, slots, environment, config, directory
    case hidden, network, model, visible, device, batching
    case awaitsModel = "awaits_model"
    case isShared = "shared"
    case memoryBytes = "memory_bytes"
    case temporaryBytes = "temporary_bytes"
  }
}
