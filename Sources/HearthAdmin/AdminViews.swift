import Foundation
import HearthCore
import HearthDispatch
import HearthStore
import Hummingbird

/// What the admin API answers, as JSON. Durations are seconds, sizes bytes, times RFC 3339.
struct FunctionView: ResponseEncodable {
  let name: String
  let version: String
  let number: Int
  let digest: String
  let description: String?
  let deployedAt: Date
  let workers: Int
  let queued: Int
  let inFlight: Int
  /// `ready`, `cold`, `failing` or `unavailable`.
  let state: String
  let reason: String?

  init(_ function: FunctionStore.Function, _ served: ServedFunction?) {
    let views = served?.endpoints.map { $0.view() }
    name = function.name.rawValue
    version = function.digest.short
    number = function.number
    digest = function.digest.hex
    description = served?.version.spec.description
    deployedAt = function.deployedAt
    workers = views?.reduce(0) { $0 + $1.workers.count } ?? 0
    queued = views?.reduce(0) { $0 + $1.queued } ?? 0
    inFlight = views?.reduce(0) { $0 + $1.inFlight } ?? 0
    // Of many models one that fails is that model's own matter.
    reason = served?.hasModels == true ? nil : views?.first?.failure?.reason
    if views == nil {
      state = "unavailable"
    } else if reason != nil {
      state = "failing"
    } else {
      state = views!.contains(where: \.hasReadyWorker) ? "ready" : "cold"
    }
  }
}

struct WorkerView: ResponseEncodable {
  let worker: String
  let function: String
  /// The model that it has loaded; nil where the function is not one of many.
  let model: String?
  let version: String
  let state: String
  let inFlight: Int
  let pid: Int32?
  /// Where it runs: `cpu`, or the device that is its.
  let device: String
  let idleSeconds: Double?
  let note: String?
  /// The most proportional set size its processes were measured to take; nil until they were.
  let memoryBytes: Int64?

  init(_ view: FunctionEndpoint.WorkerView, of endpoint: FunctionEndpoint) {
    worker = view.snapshot.id.description
    function = endpoint.version.name.rawValue
    model = endpoint.model?.name.rawValue
    version = endpoint.version.digest.short
    state = view.snapshot.state.rawValue
    inFlight = view.snapshot.inFlight
    pid = view.pid
    device = view.device
    idleSeconds = view.snapshot.idle?.seconds
    note = view.note
    memoryBytes = view.memory?.bytes
  }
}

struct KnobView: ResponseEncodable {
  let name: String
  let value: String
  /// `default`, `function.yaml` or `live`.
  let source: String
  let expected: String
  let meaning: String
}

struct DescriptionView: ResponseEncodable {
  let function: FunctionView
  let workers: [WorkerView]
  let policy: [KnobView]
  /// Isolation features that this machine lacks, with the reason.
  let missingIsolation: [String: String]
}

struct VersionView: ResponseEncodable {
  let number: Int
  let version: String
  let digest: String
  let deployedAt: Date
  let isCurrent: Bool
}

struct BundleView: ResponseEncodable {
  let digest: String
}

struct DeployView: ResponseEncodable {
  let name: String
  let version: String
  let number: Int
  let digest: String
}

struct MissingBlobsView: ResponseEncodable {
  let missing: [String]
}

struct GatewayView: ResponseEncodable {
  let version: String
  let data: String
  let missingIsolation: [String: String]
}
