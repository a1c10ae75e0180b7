import Foundation
import HearthCore
import HearthDispatch
import HearthScheduler
import Hummingbird
import NIOCore
import NIOPosix

/// Policies, the decisions that follow from them, and the traffic they are judged by.
extension AdminRoutes {
  func policy(_ name: FunctionName) throws -> [KnobView] {
    let function = try registry.known(name)
    guard let served = registry.served(name) else { return [] }
    let policy = served.policy
    return PolicyKnob.all.map { knob in
      let isWritten = served.version.spec.policyKeys.contains(knob.name)
      let source = function.overrides[knob.name] != nil ? "live" : isWritten ? "function.yaml" : "default"
      return KnobView(
        name: knob.name, value: knob.read(policy), source: source, expected: knob.unit, meaning: knob.meaning)
    }
  }

  @Sendable func changePolicy(_ request: Request, _ context: BasicRequestContext) async throws -> [KnobView] {
    let name = try name(context)
    let changes: [String: String?] = try await decode(request, context)
    try await registry.setPolicy(name, changes)
    return try policy(name)
  }

  /// The last decisions about the function's pool, the newest last.
  @Sendable func decisions(_ request: Request, _ context: BasicRequestContext) throws -> [DecisionView] {
    let name = try name(context)
    _ = try registry.known(name)
    let last = max(0, request.uri.queryParameters.get("last", as: Int.self) ?? 20)
    let model = request.uri.queryParameters["model"].map(String.init)
    guard let endpoint = try registry.endpoint(name, model: model) else { return [] }
    let (decisions, policy, wallOffset) = endpoint.decisions()
    return decisions.suffix(last).map { DecisionView($0, policy, wallOffset) }
  }

  /// The function's recorded requests as CSV.
  @Sendable func trace(_ request: Request, _ context: BasicRequestContext) throws -> Response {
    let name = try name(context)
    _ = try registry.known(name)
    let reader = registry.arrivalReader(name)
    return Response(
      status: .ok, headers: [.contentType: "text/csv; charset=utf-8"],
      body: ResponseBody { writer in
        // Read by a thread that may block, a part at a time.
        while let part = try await NIOThreadPool.singleton.runIfActive({ reader.next() }) {
          try await writer.write(ByteBuffer(string: part))
        }
        try await writer.finish(nil)
      })
  }
}

/// One decision about a pool, as JSON. Times are RFC 3339.
public struct DecisionView: Decodable, ResponseEncodable {
  public struct Observation: Codable, Sendable {
    public let workers: Int
    public let inFlight: Int
    public let waiting: Int
    public let windowMean: Double
    public let panicWindowMean: Double
    public let isPanic: Bool
    public let wanted: Int?
  }

  public let at: Date
  /// When the same was last decided again in a row.
  public let lastAt: Date
  public let count: Int
  public let action: String
  public let reason: String
  public let seen: String
  /// The knob that allowed no more, or kept the pool as it is.
  public let limitedBy: String?
  public let observation: Observation

  init(_ decision: ScalingDecision, _ policy: FunctionPolicy, _ wallOffset: Duration) {
    func date(_ instant: HearthInstant) -> Date {
      Date(timeIntervalSince1970: (.nanoseconds(instant.nanoseconds) + wallOffset).seconds)
    }
    at = date(decision.at)
    lastAt = date(decision.lastAt)
    count = decision.count
    action = decision.action
    reason = decision.explanation(policy)
    seen = decision.seen
    if case .held(let knob) = decision.outcome { limitedBy = knob } else { limitedBy = decision.limit }
    observation = Observation(
      workers: decision.observation.workers, inFlight: decision.observation.inFlight,
      waiting: decision.observation.waiting, windowMean: decision.observation.mean,
      panicWindowMean: decision.observation.panicMean, isPanic: decision.observation.isPanic,
      wanted: decision.observation.wanted)
  }
}
