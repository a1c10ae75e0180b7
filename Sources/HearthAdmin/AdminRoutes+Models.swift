import Foundation
import HearthBundle
import HearthCore
import HearthDispatch
import Hummingbird
import NIOCore

/// The models of a function that has many, and the memory they share.
extension AdminRoutes {
  func addModelRoutes(to api: RouterGroup<BasicRequestContext>) {
    api.post("weights") { request, context in try await store(.weights, request, context) }
    api.get("functions/:name/models") { _, context in
      try registry.servedWithModels(name(context)).modelViews().map(ModelView.init)
    }
    api.put("functions/:name/models/:model", use: addModel)
    api.delete("functions/:name/models/:model") { _, context in
      try await registry.removeModel(model(context), from: name(context))
      return HTTPResponse.Status.noContent
    }
    api.get("devices") { _, _ in registry.devices.map(DeviceView.init) }
  }

  private func model(_ context: BasicRequestContext) throws -> ModelName {
    try ModelName(context.parameters.require("model") as String)
  }

  @Sendable private func addModel(
    _ request: Request, _ context: BasicRequestContext
  ) async throws -> HTTPResponse.Status {
    struct Command: Decodable {
      let digest: String?
      let source: String?
      let sha256: String?
      let memory: Int64?
      let pinned: Bool?
      let priority: Int?
    }
    let command: Command = try await decode(request, context)
    let weights: FunctionRegistry.Weights
    switch (command.digest, command.source) {
    case (let digest?, nil): weights = .uploaded(try Digest(digest))
    case (nil, let source?): weights = .source(source, sha256: try command.sha256.map { try Digest($0) })
    default:
      throw HearthError(
        .adminRequestInvalid, "A model's weights come by 'digest' or by 'source'.", hint: "Give one of the two.")
    }
    let priority = command.priority ?? 0
    guard ModelSettings.priorities.contains(priority), command.memory ?? 1 > 0 else {
      throw HearthError(
        .adminRequestInvalid, "A model's priority is from -100 to 100, and its memory more than nothing.")
    }
    let settings = ModelSettings(
      memory: command.memory.map { ByteSize(bytes: $0) }, isPinned: command.pinned ?? false, priority: priority)
    try await registry.addModel(model(context), to: name(context), weights, settings)
    return .created
  }
}

/// One model, as JSON. Sizes are bytes, times seconds.
struct ModelView: ResponseEncodable {
  let model: String
  /// `cold`, `waiting`, `loading`, `idle`, `busy`, `unloading` or `failing`.
  let state: String
  /// Where it is: on its `device`, kept in the memory of its `host`, or on `disk` alone.
  let tier: String
  /// The devices it is on, `cpu` for the machine's memory.
  let devices: [String]
  let pinned: Bool
  let priority: Int
  /// Whether it was added after the deploy.
  let added: Bool
  let fileBytes: Int64
  /// What is reserved for it before it was measured.
  let expectedBytes: Int64
  let measuredBytes: Int64?
  let hits: Int
  let misses: Int
  let loads: Int
  /// How many of the loads brought it back from the host's memory.
  let restores: Int
  let loadSeconds: Double?
  let unusedSeconds: Double?
  let queued: Int
  let reason: String?

  init(_ view: ServedFunction.ModelView) {
    model = view.model.name.rawValue
    state = view.state.rawValue
    tier = view.tier.rawValue
    devices = view.tier == .device ? view.devices : []
    pinned = view.model.settings.isPinned
    priority = view.model.settings.priority
    added = view.model.isAdded
    fileBytes = view.model.bytes
    expectedBytes = view.expected.bytes
    measuredBytes = view.measured?.bytes
    hits = view.usage.hits
    misses = view.usage.misses
    loads = view.usage.loads
    restores = view.restores
    loadSeconds = view.usage.loadTime?.seconds
    unusedSeconds = view.unused?.seconds
    queued = view.queued
    reason = view.failure
  }
}

/// A device whose memory workers and models share, as JSON. Sizes are bytes, times seconds.
struct DeviceView: ResponseEncodable {
  let device: String
  /// What it is sold as; nil of the machine's own memory, `simulated` of one that is not there.
  let model: String?
  let budgetBytes: Int64
  /// What workers hold or are reserved.
  let grantedBytes: Int64
  /// What the gateway's own processes take: zygotes and spares.
  let overheadBytes: Int64
  let workers: Int
  let waiting: Int
  let eviction: String
  /// Idle workers that made room, and how long they had been idle on average.
  let evictions: Int
  let evictionIdleSeconds: Double?
  /// Workers in use that made room for others that had waited too long.
  let yields: Int
  /// What is wrong with it; nil when nothing is.
  let note: String?

  init(_ view: LedgerView) {
    device = view.name
    model = view.model
    budgetBytes = view.budget.bytes
    grantedBytes = view.granted.bytes
    overheadBytes = view.overhead.bytes
    workers = view.workers
    waiting = view.waiting
    eviction = view.eviction.rawValue
    evictions = view.evictions
    evictionIdleSeconds = view.evictionIdle?.seconds
    yields = view.yields
    note = view.note
  }
}
