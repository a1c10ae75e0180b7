import HearthBundle
import HearthCore
import HearthDispatch
import HearthStore
import Logging

/// Deploys, changes and deletes functions: store and dispatcher are kept in step here, one change of a function at a
/// time.
public actor FunctionRegistry {
  let store: FunctionStore
  let preparer: VersionPreparer
  let dispatcher: Dispatcher
  private let arrivals: ArrivalLog
  let logger: Logger
  private var changing: Set<FunctionName> = []
  private var waiting: [FunctionName: [CheckedContinuation<Void, Never>]] = [:]

  public init(
    store: FunctionStore, preparer: VersionPreparer, dispatcher: Dispatcher, arrivals: ArrivalLog, logger: Logger
  ) {
    self.store = store
    self.preparer = preparer
    self.dispatcher = dispatcher
    self.arrivals = arrivals
    self.logger = logger
  }

  /// Serves what was deployed before a restart. A function that cannot be prepared is logged and stays away.
  public func restore() async {
    let functions: [FunctionStore.Function]
    do {
      functions = try store.functions()
    } catch {
      return logger.error("the store cannot be read; no function is served", metadata: ["reason": "\(error)"])
    }
    // What a crash in the middle of a deletion has left.
    preparer.catalog.retainModels(of: Set(functions.map(\.name.rawValue)))
    for function in functions {
      do {
        // A preload that hangs must not keep the others away.
        let version = try await preparer.prepare(
          function.name, function.digest, overrides: function.overrides, added: addedModels(function.name),
          waits: false, progress: { _ in })
        dispatcher.restore(version, rests: arrivals.rests(function.name))
        preparer.release(version)
      } catch {
        logger.error("function not restored", metadata: ["function": "\(function.name)", "reason": "\(error)"])
      }
    }
  }

  /// Makes a bundle the function's version. The order lets a crash at any point leave the old version or the new one:
  /// prepare, load if the old one is warm, store, switch.
  public func deploy(
    _ name: FunctionName, _ digest: Digest, progress: @escaping VersionPreparer.Progress
  ) async throws -> FunctionStore.Version {
    await begin(name)
    defer { end(name) }
    let overrides = try store.function(name)?.overrides ?? [:]
    let version = try await preparer.prepare(
      name, digest, overrides: overrides, added: addedModels(name), progress: progress)
    defer { preparer.release(version) }
    progress("Switching over")
    let store = store
    let stored = try await dispatcher.deploy(version, rests: arrivals.rests(name)) { try store.deploy(name, digest) }
    releaseZygotes()
    logger.info("deployed", metadata: ["function": "\(name)", "version": "\(digest.short)"])
    return stored
  }

  public func delete(_ name: FunctionName) async throws {
    await begin(name)
    defer { end(name) }
    _ = try known(name)
    try store.delete(name)
    dispatcher.delete(name)
    arrivals.remove(name)
    preparer.catalog.unplaceModels(of: name)
    releaseZygotes()
    logger.info("deleted", metadata: ["function": "\(name)"])
  }

  /// Lays values over the policy, live. A nil value takes an earlier one off.
  public func setPolicy(_ name: FunctionName, _ changes: [String: String?]) async throws {
    await begin(name)
    defer { end(name) }
    var overrides = try known(name).overrides
    guard let function = dispatcher.function(name) else { throw unavailable(name) }
    for (knob, value) in changes {
      guard let known = PolicyKnob.named(knob) else {
        let nearest = knob.nearest(in: PolicyKnob.all.map(\.name))
        throw HearthError(
          .policyInvalid, "'\(knob.printable(limit: 80))' is not a knob of a policy.",
          hint: nearest.map { "Did you mean '\($0)'?" })
      }
      guard known.isLive else {
        throw HearthError(
          .policyInvalid, "\(knob) cannot change while workers run.", hint: "Set it in function.yaml and deploy.")
      }
      overrides[knob] = value
    }
    let policy = try function.version.spec.policy.overridden(by: overrides)
    if function.hasModels { try policy.validateForModels() }
    try store.setOverrides(name, overrides)
    function.setPolicy(policy)
  }

  // Views.

  public nonisolated func functions() throws -> [FunctionStore.Function] { try store.functions() }

  public nonisolated func versions(_ name: FunctionName) throws -> [FunctionStore.Version] {
    _ = try known(name)
    return try store.versions(name)
  }

  public nonisolated func known(_ name: FunctionName) throws -> FunctionStore.Function {
    if let function = try store.function(name) { return function }
    let nearest = name.rawValue.nearest(in: try store.functions().map(\.name.rawValue))
    throw HearthError(
      .functionNotFound, "No function '\(name)' is deployed.",
      hint: nearest.map { "Did you mean '\($0)'?" } ?? "List what is there with 'hearth list'.")
  }

  public nonisolated func served(_ name: FunctionName) -> ServedFunction? { dispatcher.function(name) }

  /// The endpoint of a function, or of one of its models; nil where it has none yet. Throws `model_missing` or
  /// `model_not_found`.
  public nonisolated func endpoint(_ name: FunctionName, model: String?) throws -> FunctionEndpoint? {
    try served(name)?.existingEndpoint(model: model)
  }

  public nonisolated var served: [ServedFunction] { dispatcher.functions }

  /// The devices whose memory workers share.
  public nonisolated var devices: [LedgerView] { dispatcher.devices }

  /// The function's recorded requests.
  public nonisolated func arrivalReader(_ name: FunctionName) -> ArrivalReader { arrivals.reader(name) }

  public nonisolated func logPath(_ name: FunctionName) -> String { preparer.log(of: name).path }

  public nonisolated var missingIsolation: [String: String]? { preparer.missingIsolation }

  nonisolated func unavailable(_ name: FunctionName) -> HearthError {
    HearthError(
      .functionNotFound, "The function '\(name)' could not be prepared when the gateway started.",
      hint: "Deploy it again; the gateway's log has the reason.")
  }

  private func releaseZygotes() { preparer.retainZygotes(of: dispatcher.functions.map(\.version)) }

  // One change of a function at a time.

  func begin(_ name: FunctionName) async {
    while changing.contains(name) {
      await withCheckedContinuation { waiting[name, default: []].append($0) }
    }
    changing.insert(name)
  }

  func end(_ name: FunctionName) {
    changing.remove(name)
    for continuation in waiting.removeValue(forKey: name) ?? [] { continuation.resume() }
  }
}
