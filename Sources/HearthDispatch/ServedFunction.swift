import HearthBundle
import HearthCore
import HearthHTTP1
import HearthScheduler
import NIOConcurrencyHelpers
import NIOCore

/// One version of one function as it is served: by one endpoint, or by one for each of its models.
public final class ServedFunction: Sendable {
  /// A model with its endpoint, once it was asked for.
  struct Entry {
    let model: Model
    /// Counts the models that were served under any name.
    let incarnation: Int
    var endpoint: FunctionEndpoint?
  }

  struct Models {
    var entries: [ModelName: Entry] = [:]
    /// The same names as they stand in a path.
    var names: [Substring: ModelName] = [:]
    /// Those that were taken away and may still finish requests, and the requests of those that have.
    var removed: [FunctionEndpoint] = []
    var removedHits = 0
    var removedMisses = 0
    /// The function's policy in force.
    var policy: FunctionPolicy
    var incarnations = 0
    var isRetired = false
  }

  public let version: DeployedVersion
  let number: Int
  /// The one endpoint of a function without models.
  private let single: FunctionEndpoint?
  let models: NIOLockedValueBox<Models>
  let surroundings: EndpointSurroundings

  /// - Parameter rests: how long the function was without requests, the newest last.
  init(_ version: DeployedVersion, number: Int, rests: [Duration], _ surroundings: EndpointSurroundings) {
    self.version = version
    self.number = number
    models = NIOLockedValueBox(Models(policy: version.policy))
    guard let list = version.models else {
      self.surroundings = surroundings
      single = FunctionEndpoint(version, number: number, rests: rests, surroundings)
      return
    }
    var shared = surroundings
    shared.prediction = NIOLockedValueBox(MemoryPrediction())
    self.surroundings = shared
    single = nil
    models.withLockedValue { models in
      for model in list { models.add(model) }
    }
  }

  public var hasModels: Bool { single == nil }

  /// Requests of models that were taken away: those that found theirs there, and those that it was loaded for.
  public var removedRequests: (hits: Int, misses: Int) {
    models.withLockedValue { ($0.removedHits, $0.removedMisses) }
  }

  /// The endpoints there are: of models, those that were asked for.
  public var endpoints: [FunctionEndpoint] {
    if let single { return [single] }
    return models.withLockedValue { models in
      models.entries.values.compactMap(\.endpoint).sorted { $0.owner < $1.owner } + models.removed
    }
  }

  // Requests.

  /// Paths of models below a function's root.
  private static let modelPrefix: StaticString = "/models/"

  /// Where a request goes.
  typealias Route = (endpoint: FunctionEndpoint, target: String)

  /// The endpoint that serves a request, and what the request's target is to it. A model is named by the path,
  /// `/models/NAME`, or by the field `Hearth-Model`. Nil when another version has taken over meanwhile. Throws
  /// `model_missing` or `model_not_found`.
  func route(_ exchange: any ClientExchange) throws -> Route? {
    if let single { return (single, exchange.target) }
    let (name, target) = NamedPath.split(exchange.target, after: ServedFunction.modelPrefix) ?? ("", exchange.target)
    if !name.isEmpty { return try endpoint(of: name).map { ($0, target) } }
    guard let name = exchange.request.message.first("hearth-model"), !name.isEmpty else {
      throw HearthError(
        .modelMissing, "The request names none of the models of '\(version.name)'.",
        hint: "Call POST /functions/\(version.name)/models/MODEL, or send the field Hearth-Model.")
    }
    return try endpoint(of: name[...]).map { ($0, exchange.target) }
  }

  /// Nil when no model is served any more.
  private func endpoint(of name: Substring) throws -> FunctionEndpoint? {
    let (found, isRetired) = models.withLockedValue { models in
      (models.isRetired ? nil : models.names[name].map { endpoint(of: $0, &models) }, models.isRetired)
    }
    guard found == nil, !isRetired else { return found }
    throw modelNotFound(name)
  }

  private func modelNotFound(_ name: Substring) -> HearthError {
    let names = models.withLockedValue { $0.entries.keys.map(\.rawValue).sorted() }
    let nearest = String(name.prefix(ModelName.lengthMax)).nearest(in: names)
    return HearthError(
      .modelNotFound, "'\(version.name)' has no model '\(String(name).printable(limit: 80))'.",
      hint: nearest.map { "Did you mean '\($0)'?" } ?? "List them with 'hearth models \(version.name)'.")
  }

  /// The endpoint of a model that was asked for before, or the function's one endpoint; nil where there is none yet.
  public func existingEndpoint(model: String?) throws -> FunctionEndpoint? {
    if let single { return single }
    guard let model else {
      throw HearthError(
        .modelMissing, "'\(version.name)' has many models, each with decisions of its own.",
        hint: "Name one of them: --model MODEL.")
    }
    guard
      let known = models.withLockedValue({ models in models.names[model[...]].map { models.entries[$0]?.endpoint } })
    else { throw modelNotFound(model[...]) }
    return known
  }

  private func endpoint(of name: ModelName, _ models: inout Models) -> FunctionEndpoint {
    if let endpoint = models.entries[name]?.endpoint { return endpoint }
    var version = version
    version.policy = models.policy
    let entry = models.entries[name]!
    let endpoint = FunctionEndpoint(
      version, entry.model, incarnation: entry.incarnation, number: number, surroundings)
    models.entries[name]!.endpoint = endpoint
    return endpoint
  }

  // The life of the version.

  /// Begins to serve. The future fails with the reason when a worker that is to be there cannot start.
  ///
  /// - Parameter predecessor: the version that serves now, whose place this one takes warm.
  func activate(after predecessor: ServedFunction?) -> EventLoopFuture<Void> {
    let policy = version.policy
    if let single {
      let initial = max(policy.workersInitial ?? 0, policy.workersMin)
      return single.activate(workers: predecessor?.hasWorkers == true ? max(1, initial) : initial)
    }
    var first = models.withLockedValue { models in models.entries.values.filter { $0.model.settings.isPinned } }
      .map(\.model.name)
    // The model that was asked for last stands for all: what does not load must not take over.
    if let last = predecessor?.lastUsedModel, !first.contains(last) { first.append(last) }
    let endpoints = models.withLockedValue { models in
      first.filter { models.entries[$0] != nil }.map { endpoint(of: $0, &models) }
    }
    return EventLoopFuture.andAllSucceed(
      endpoints.map { $0.activate(workers: 1) }, on: surroundings.timers)
  }

  /// Serves as before a restart: nobody waits for its workers.
  func restore() {
    if let single {
      _ = single.activate(workers: version.policy.workersMin)
    } else {
      _ = activate(after: nil)
    }
  }

  private var hasWorkers: Bool { endpoints.contains { !$0.isEmpty } }

  /// The model with a ready worker that was asked for last.
  private var lastUsedModel: ModelName? {
    endpoints.filter { $0.model != nil && $0.view().hasReadyWorker }
      .max { ($0.usage.lastUsed?.nanoseconds ?? 0) < ($1.usage.lastUsed?.nanoseconds ?? 0) }?.model?.name
  }

  /// Stops taking requests; the future succeeds when the last worker is gone.
  func retire() -> EventLoopFuture<Void> {
    // No endpoint is made after this.
    models.withLockedValue { $0.isRetired = true }
    surroundings.node.forget(version.name, version: number)
    return EventLoopFuture.andAllComplete(endpoints.map { $0.retire() }, on: surroundings.timers)
  }

  /// Whether no worker is left.
  var isEmpty: Bool { endpoints.allSatisfy(\.isEmpty) }

  /// The policy in force, live values included: of a function of many models, that of each.
  public var policy: FunctionPolicy { single?.policy ?? models.withLockedValue(\.policy) }

  public func setPolicy(_ policy: FunctionPolicy) {
    models.withLockedValue { $0.policy = policy }
    for endpoint in endpoints { endpoint.setPolicy(policy) }
  }

  // Models.

  /// What a model is reserved before it was measured.
  func expectedMemory(of model: Model) -> ByteSize {
    let predicted = surroundings.prediction?.withLockedValue { $0.bytes(files: model.bytes) } ?? model.bytes
    return model.settings.memory ?? ByteSize(bytes: predicted)
  }

  /// A model by its name. Throws `model_not_found`.
  public func model(_ name: ModelName) throws -> Model {
    guard let entry = models.withLockedValue({ $0.entries[name] }) else { throw modelNotFound(name.rawValue[...]) }
    return entry.model
  }

  /// Throws `model_conflict` when there is a model of this name.
  public func checkIsNew(_ name: ModelName) throws {
    guard models.withLockedValue({ $0.entries[name] == nil }) else {
      throw HearthError(
        .modelConflict, "'\(version.name)' has a model '\(name)' already.",
        hint: "Remove it first, or choose another name.")
    }
  }

  /// Serves one more model, of a name that is new.
  public func add(_ model: Model) {
    let pinned: FunctionEndpoint? = models.withLockedValue { models in
      models.add(model)
      return model.settings.isPinned ? endpoint(of: model.name, &models) : nil
    }
    _ = pinned?.activate(workers: 1)
  }

  /// Serves a model no more: what waits is refused, what runs may finish.
  public func remove(_ name: ModelName) {
    let removed: FunctionEndpoint? = models.withLockedValue { models in
      models.names[name.rawValue[...]] = nil
      let endpoint = models.entries.removeValue(forKey: name)?.endpoint
      for endpoint in models.removed where endpoint.isEmpty {
        models.removedHits += endpoint.usage.hits
        models.removedMisses += endpoint.usage.misses
      }
      models.removed.removeAll(where: \.isEmpty)
      if let endpoint { models.removed.append(endpoint) }
      return endpoint
    }
    _ = removed?.retire()
    if let removed { surroundings.node.removed(removed.owner) }
  }
}

extension ServedFunction.Models {
  mutating func add(_ model: Model) {
    incarnations += 1
    entries[model.name] = ServedFunction.Entry(model: model, incarnation: incarnations)
    names[model.name.rawValue[...]] = model.name
  }
}
