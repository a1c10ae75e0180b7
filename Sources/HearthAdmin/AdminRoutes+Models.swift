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
