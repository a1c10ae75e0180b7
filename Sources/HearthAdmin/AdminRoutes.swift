import Foundation
import HearthBundle
import HearthCore
import HearthDispatch
import HearthHTTP1
import Hummingbird
import NIOCore
import ServiceLifecycle

/// The calls of the control API, below `/v1`, and `/metrics`.
struct AdminRoutes {
  let registry: FunctionRegistry
  let catalog: BundleCatalog
  let dataAddress: String
  let version: String

  func add(to router: Router<BasicRequestContext>) {
    let api = router.group("/v1")
    api.get("gateway") { _, _ in gateway() }
    api.post("bundles") { request, context in try await store(.function, request, context) }
    api.post("blobs/missing", use: missingBlobs)
    api.put("blobs/:digest", use: uploadBlob)
    api.get("functions") { _, _ in
      try registry.functions().map { FunctionView($0, registry.served($0.name)) }
    }
    api.get("functions/:name") { _, context in try describe(name(context)) }
    api.put("functions/:name", use: deploy)
    api.delete("functions/:name") { _, context in
      try await registry.delete(name(context))
      return HTTPResponse.Status.noContent
    }
    api.get("functions/:name/versions") { _, context in try versions(name(context)) }
    api.get("functions/:name/policy") { _, context in try policy(name(context)) }
    api.patch("functions/:name/policy", use: changePolicy)
    api.get("functions/:name/decisions", use: decisions)
    api.get("functions/:name/trace", use: trace)
    api.get("functions/:name/logs", use: logs)
    addModelRoutes(to: api)
    addMetricsRoute(to: router)
    api.get("workers") { _, _ in registry.served.flatMap(workers) }
  }

  func name(_ context: BasicRequestContext) throws -> FunctionName {
    try FunctionName(context.parameters.require("name"))
  }

  private func gateway() -> GatewayView {
    GatewayView(version: version, data: dataAddress, missingIsolation: registry.missingIsolation ?? [:])
  }

  // Bundles.

  /// Takes an archive of a function or of a model's weights.
  func store(
    _ content: BundleContent, _ request: Request, _ context: BasicRequestContext
  ) async throws -> Response {
    let upload = try catalog.upload(content)
    for try await part in request.body { try part.withUnsafeReadableBytes(upload.write) }
    let view = BundleView(digest: try upload.finish().hex)
    var response = try context.responseEncoder.encode(view, from: request, context: context)
    response.status = .created
    return response
  }

  @Sendable private func missingBlobs(
    _ request: Request, _ context: BasicRequestContext
  ) async throws -> MissingBlobsView {
    struct Query: Decodable {
      let digests: [String]
    }
    let query: Query = try await decode(request, context)
    let digests = try query.digests.map { try Digest($0) }
    return MissingBlobsView(missing: digests.filter { !catalog.blobs.contains($0) }.map(\.hex))
  }

  @Sendable private func uploadBlob(
    _ request: Request, _ context: BasicRequestContext
  ) async throws -> HTTPResponse.Status {
    let upload = try catalog.blobs.upload(Digest(context.parameters.require("digest")))
    for try await part in request.body { try part.withUnsafeReadableBytes(upload.write) }
    try upload.finish()
    return .created
  }

  // Functions.

  /// Answers with the version, or, to a caller that accepts newline-delimited JSON, with a line for each step.
  @Sendable private func deploy(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
    struct Command: Decodable {
      let digest: String
    }
    let name = try name(context)
    let command: Command = try await decode(request, context)
    let digest = try Digest(command.digest)
    _ = try catalog.folder(of: digest)
    guard request.headers[.accept]?.contains("application/x-ndjson") == true else {
      let view = try await deploy(name, digest) { _ in }
      return try context.responseEncoder.encode(view, from: request, context: context)
    }
    let registry = registry
    return Response(
      status: .ok, headers: [.contentType: "application/x-ndjson"],
      body: ResponseBody { writer in
        let (steps, continuation) = AsyncStream.makeStream(of: String.self, bufferingPolicy: .bufferingNewest(256))
        let work = Task {
          defer { continuation.finish() }
          return try await registry.deploy(name, digest) { continuation.yield($0) }
        }
        // Cancelled with the response only by its own end: a deploy goes on when its watcher leaves.
        for await step in steps {
          try? await writer.write(ByteBuffer(string: "{\"progress\":\(JSONText.quoted(step))}\n"))
        }
        switch await work.result {
        case .success(let version):
          let view = Self.view(name, digest, version.number)
          let json = String(decoding: try JSONEncoder().encode(view), as: UTF8.self)
          try await writer.write(ByteBuffer(string: "{\"result\":\(json)}\n"))
        case .failure(let error):
          let error = AdminFailure.error(for: error)
          try await writer.write(ByteBuffer(string: ErrorEnvelope.json(error, request: "", source: .gateway)))
        }
        try await writer.finish(nil)
      })
  }

  private func deploy(
    _ name: FunctionName, _ digest: Digest, progress: @escaping VersionPreparer.Progress
  ) async throws -> DeployView {
    Self.view(name, digest, try await registry.deploy(name, digest, progress: progress).number)
  }

  private static func view(_ name: FunctionName, _ digest: Digest, _ number: Int) -> DeployView {
    DeployView(name: name.rawValue, version: digest.short, number: number, digest: digest.hex)
  }

  private func describe(_ name: FunctionName) throws -> DescriptionView {
    let function = try registry.known(name)
    let served = registry.served(name)
    return DescriptionView(
      function: FunctionView(function, served), workers: served.map(workers) ?? [],
      policy: try policy(name), missingIsolation: registry.missingIsolation ?? [:])
  }

  private func workers(of served: ServedFunction) -> [WorkerView] {
    served.endpoints.flatMap { endpoint in endpoint.view().workers.map { WorkerView($0, of: endpoint) } }
  }

  private func versions(_ name: FunctionName) throws -> [VersionView] {
    let current = try registry.known(name).digest
    return try registry.versions(name).map { version in
      VersionView(
        number: version.number, version: version.digest.short, digest: version.digest.hex,
        deployedAt: version.deployedAt, isCurrent: version.digest == current)
    }
  }

  // Logs.

  /// The last `lines` lines of the log as text; with `follow=true` also what comes after, until the caller leaves.
  @Sendable private func logs(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
    let name = try name(context)
    _ = try registry.known(name)
    let lines = request.uri.queryParameters.get("lines", as: Int.self) ?? 100
    let follows = request.uri.queryParameters.get("follow") == "true"
    var tail = LogTail(path: registry.logPath(name))
    let recent = tail.last(lines: min(max(lines, 0), 100_000))
    return Response(
      status: .ok, headers: [.contentType: "text/plain; charset=utf-8"],
      body: ResponseBody { [tail] writer in
        try await writer.write(ByteBuffer(bytes: recent))
        if follows {
          // Ends when the caller leaves, or the gateway shuts down.
          try? await request.body.consumeWithCancellationOnInboundClose { _ in
            var tail = tail
            while !Task.isShuttingDownGracefully {
              try await Task.sleep(for: .milliseconds(200))
              let more = tail.next()
              if !more.isEmpty { try await writer.write(ByteBuffer(bytes: more)) }
            }
          }
        }
        try await writer.finish(nil)
      })
  }

  func decode<Value: Decodable>(_ request: Request, _ context: BasicRequestContext) async throws -> Value {
    // 4 MiB: the digests of 50,000 blobs.
    let bytesMax = 4 << 20
    var body = Data()
    for try await part in request.body {
      guard body.count + part.readableBytes <= bytesMax else {
        throw HearthError(.adminRequestInvalid, "The call's body is larger than \(bytesMax >> 20) MiB.")
      }
      body.append(contentsOf: part.readableBytesView)
    }
    do {
      return try JSONDecoder().decode(Value.self, from: body)
    } catch {
      throw HearthError(
        .adminRequestInvalid, "The call's body is not the JSON it should be.", hint: "docs/admin-api.md shows it.")
    }
  }
}
