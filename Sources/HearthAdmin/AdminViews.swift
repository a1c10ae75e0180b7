import Foundation
import HearthCore
import HearthDispatch
import HearthStore
import Hummingbird

/// What the admin API answers, as JSON. Durations are seconds, sizes bytes, times RFC 3339.
public struct FunctionView: Decodable, ResponseEncodable {
  public let name: String
  public let version: String
  public let number: Int
  public let digest: String
  public let description: String?
  public let deployedAt: Date
  public let workers: Int
  public let queued: Int
  public let inFlight: Int
  /// `ready`, `cold`, `failing` or `unavailable`.
  public let state: String
  public let reason: String?

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

public struct WorkerView: Decodable, ResponseEncodable {
  public let worker: String
  public let function: String
  /// The model that it has loaded; nil where the function is not one of many.
  public let model: String?
  public let version: String
  public let state: String
  public let inFlight: Int
  public let pid: Int32?
  /// Where it runs: `cpu`, or the device that is its.
  public let device: String
  public let idleSeconds: Double?
  public let note: String?
  /// The most proportional set size its processes were measured to take; nil until they were.
  public let memoryBytes: Int64?

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

public struct KnobView: Decodable, ResponseEncodable {
  public let name: String
  public let value: String
  /// `default`, `function.yaml` or `live`.
  public let source: String
  public let expected: String
  public let meaning: String
}

public struct DescriptionView: Decodable, ResponseEncodable {
  public let function: FunctionView
  public let workers: [WorkerView]
  public let policy: [KnobView]
  /// Isolation features that this machine lacks, with the reason.
  public let missingIsolation: [String: String]
}

public struct VersionView: Decodable, ResponseEncodable {
  public let number: Int
  public let version: String
  public let digest: String
  public let deployedAt: Date
  public let isCurrent: Bool
}

public struct BundleView: Decodable, ResponseEncodable {
  public let digest: String
}

public struct DeployView: Decodable, ResponseEncodable {
  public let name: String
  public let version: String
  public let number: Int
  public let digest: String
}

public struct MissingBlobsView: Decodable, ResponseEncodable {
  public let missing: [String]
}

public struct GatewayView: Decodable, ResponseEncodable {
  public let version: String
  public let data: String
  public let missingIsolation: [String: String]
}
