import HearthBundle
import HearthCore
import HearthDispatch
import HearthStore
import NIOPosix

/// Models that come to a function and go after its deploy.
extension FunctionRegistry {
  /// Where the weights of a model come from.
  public enum Weights: Sendable {
    case uploaded(Digest)
    /// Fetched by the gateway; the digest is what they must be, if it is known.
    case source(String, sha256: Digest?)
  }

  /// Serves one more model. Its weights are in place before it is stored, and it is stored before it is served.
  public func addModel(
    _ model: ModelName, to name: FunctionName, _ weights: Weights, _ settings: ModelSettings
  ) async throws {
    let catalog = preparer.catalog
    try servedWithModels(name).checkIsNew(model)
    // What may take an hour must not keep others from changing the function.
    let digest: Digest =
      switch weights {
      case .uploaded(let digest): digest
      case .source(let source, let sha256):
        try await NIOThreadPool.singleton.runIfActive {
          try catalog.fetchWeights(source, sha256: sha256) { _, _ in }
        }
      }
    await begin(name)
    defer { end(name) }
    let function = try servedWithModels(name)
    try function.checkIsNew(model)
    let entry = try Model(
      name: model, path: catalog.place(digest, as: model, of: name), settings: settings, isAdded: true)
    try store.addModel(
      FunctionStore.AddedModel(
        name: model, digest: digest, memory: settings.memory, isPinned: settings.isPinned,
        priority: settings.priority),
      to: name)
    function.add(entry)
    logger.info("model added", metadata: ["function": "\(name)", "model": "\(model)"])
  }

  /// Serves a model no more that was added, also one that could not be served for want of its weights.
  public func removeModel(_ model: ModelName, from name: FunctionName) async throws {
    await begin(name)
    defer { end(name) }
    _ = try known(name)
    guard try store.removeModel(model, from: name) else {
      let function = try servedWithModels(name)
      _ = try function.model(model)
      throw HearthError(
        .modelConflict, "The model '\(model)' is part of the bundle of '\(name)'.",
        hint: "Deploy a version without it.")
    }
    served(name)?.remove(model)
    preparer.catalog.unplace(model, of: name)
    logger.info("model removed", metadata: ["function": "\(name)", "model": "\(model)"])
  }

  /// A function of many models. Throws `admin_request_invalid` for any other.
  nonisolated func servedWithModels(_ name: FunctionName) throws -> ServedFunction {
    _ = try known(name)
    guard let function = served(name) else { throw unavailable(name) }
    guard function.hasModels else {
      throw HearthError(
        .adminRequestInvalid, "'\(name)' is not a function of many models.",
        hint: "Add 'models: []' to its function.yaml and deploy it; docs/multi-model.md shows how.")
    }
    return function
  }

  /// The models that were added to a function, ready to be served. One whose weights are not there is logged and left
  /// out: it must not take the others along.
  func addedModels(_ name: FunctionName) throws -> [Model] {
    try store.models(of: name).compactMap { model in
      do {
        return try Model(
          name: model.name, path: preparer.catalog.place(model.digest, as: model.name, of: name),
          settings: ModelSettings(memory: model.memory, isPinned: model.isPinned, priority: model.priority),
          isAdded: true)
      } catch {
        logger.error(
          "a model cannot be served; add it anew",
          metadata: ["function": "\(name)", "model": "\(model.name)", "reason": "\(error)"])
        return nil
      }
    }
  }
}
