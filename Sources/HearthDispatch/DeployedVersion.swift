import HearthBundle
import HearthCore
import HearthScheduler
import HearthWorker

/// One version of one function, ready to be served: what a deploy has prepared.
public struct DeployedVersion: Sendable {
  public var name: FunctionName
  public var digest: Digest
  public var spec: FunctionSpec
  public var policy: FunctionPolicy
  /// The unpacked bundle.
  public var folder: String
  public var environment: PythonEnvironment
  public var log: FunctionLog
  /// Those of the bundle and those that were added; nil where the function is not one of many models.
  public var models: [Model]?
  /// The folder of models that were added; nil where the function is not one of many models.
  public var modelsFolder: String?

  public init(
    name: FunctionName, digest: Digest, spec: FunctionSpec, policy: FunctionPolicy, folder: String,
    environment: PythonEnvironment, log: FunctionLog
  ) {
    self.name = name
    self.digest = digest
    self.spec = spec
    self.policy = policy
    self.folder = folder
    self.environment = environment
    self.log = log
  }

  /// Whether the function is a Python class, as opposed to a program of its own.
  var isHandler: Bool {
    switch spec.entry {
    case .handler: true
    case .command: false
    }
  }

  /// Whether its models share a process.
  var sharesProcesses: Bool { spec.models != nil && spec.housing == .shared }

  public var forks: Bool { isHandler && spec.python.start == .fork }

  /// What its zygote imports.
  public var preload: [String] { forks ? spec.python.preload : [] }

  /// - Parameters:
  ///   - model: the one that the worker is to load; nil where the function is not one of many.
  ///   - deploy: counts the deploys of a gateway.
  func plan(_ id: WorkerID, _ model: Model? = nil, deploy: Int) -> WorkerPlan {
    let entry: WorkerPlan.Entry =
      switch spec.entry {
      case .handler(let file, let className): .handler("\(file):\(className)")
      case .command(let arguments): .command(arguments)
      }
    var variables = spec.environment
    if spec.resources.cpu > 0, variables["OMP_NUM_THREADS"] == nil {
      variables["OMP_NUM_THREADS"] = String(max(1, Int(spec.resources.cpu.rounded())))
    }
    var plan = WorkerPlan(
      id: id, function: name, version: digest.short, bundle: folder, entry: entry, environment: environment,
      preload: preload, forks: forks, slots: policy.concurrencyMax, variables: variables,
      config: spec.config, network: spec.network, memory: model == nil ? spec.resources.memory : nil,
      temporary: spec.resources.temporary, log: log,
      model: model.map { WorkerPlan.Model(name: $0.name.rawValue, path: $0.path, bytes: $0.bytes) })
    plan.deploy = deploy
    plan.batching = spec.batching.map { .init(size: $0.sizeMax, waitSeconds: $0.waitMax.seconds) }
    plan.isShared = sharesProcesses
    plan.visible = [modelsFolder].compactMap(\.self)
    return plan
  }
}

extension FunctionPolicy {
  /// The policy as it is for one of a function's models: one that is pinned keeps a worker.
  func of(_ model: Model?) -> FunctionPolicy {
    guard model?.settings.isPinned == true else { return self }
    var policy = self
    policy.workersMin = 1
    return policy
  }
}
