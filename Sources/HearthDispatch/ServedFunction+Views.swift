import HearthBundle
import HearthCore
import HearthScheduler

/// How the models of a function stand.
extension ServedFunction {
  public struct ModelView: Sendable {
    public enum State: String, Sendable {
      /// Its weights are on disk alone.
      case cold
      /// Its load waits for memory.
      case waiting
      case loading
      case idle
      case busy
      /// It makes room.
      case unloading
      /// Its loads fail.
      case failing
    }

    public enum Tier: String, Sendable {
      case device
      /// Kept in the machine's memory without its device.
      case host
      case disk
    }

    public let model: Model
    public let state: State
    /// Where its workers are; none where it has none.
    public let devices: [String]
    /// Why its loads fail; nil while they work.
    public let failure: String?
    /// What it is reserved or would be, in bytes.
    public let expected: ByteSize
    /// The most it was measured to take; nil until it was.
    public let measured: ByteSize?
    public let queued: Int
    public let usage: Usage
    /// How many of its misses brought it back from the machine's memory.
    public let restores: Int
    /// Whether it is kept there.
    public let isKept: Bool
    /// Where it is.
    public var tier: Tier {
      [.idle, .busy, .unloading].contains(state) ? .device : isKept ? .host : .disk
    }
    /// Since when nobody has asked for it; nil when nobody ever has.
    public let unused: Duration?
  }

  /// All models, in the order of their names.
  public func modelViews() -> [ModelView] {
    let kept = Set(
      surroundings.host.keptModels.lazy
        .filter { [self] in $0.function == version.name && $0.deploy == number }.map(\.model.name))
    let entries = models.withLockedValue { $0.entries.values.sorted { $0.model.name < $1.model.name } }
    return entries.map { entry in
      let expected = expectedMemory(of: entry.model)
      guard let endpoint = entry.endpoint else {
        return ModelView(
          model: entry.model, state: .cold, devices: [], failure: nil, expected: expected, measured: nil, queued: 0,
          usage: Usage(), restores: 0, isKept: false,
          unused: nil)
      }
      let view = endpoint.view()
      let usage = endpoint.usage
      return ModelView(
        model: entry.model, state: ServedFunction.state(view), devices: view.workers.map(\.device),
        failure: view.failure?.reason, expected: expected,
        measured: view.measured, queued: view.queued, usage: usage,
        restores: endpoint.restores, isKept: kept.contains(entry.model.name.rawValue),
        unused: usage.lastUsed.map { $0.duration(to: endpoint.clock.now) })
    }
  }

  private static func state(_ view: FunctionEndpoint.View) -> ModelView.State {
    let states = Set(view.workers.map(\.snapshot.state))
    if states.contains(.busy) || states.contains(.draining) { return .busy }
    if states.contains(.idle) { return .idle }
    if states.contains(.starting) { return view.workers.contains { $0.pid != nil } ? .loading : .waiting }
    if states.contains(.stopping) { return .unloading }
    return view.failure == nil ? .cold : .failing
  }
}
