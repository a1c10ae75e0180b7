import HearthCore
import HearthHTTP1
import HearthScheduler
import HearthWorker
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// The functions that are served now, by name; the router of the data plane.
public final class Dispatcher: FunctionRouter {
  private struct State {
    var functions: [FunctionName: ServedFunction] = [:]
    /// The same by the name as it stands in a path.
    var routes: [Substring: ServedFunction] = [:]
    /// Versions that are served no more and may still finish requests.
    var retired: [ServedFunction] = []
    var deploys = 0
    var isShuttingDown = false
  }

  private let surroundings: EndpointSurroundings
  private let state = NIOLockedValueBox(State())
  private let nextInvocation = NIOLockedValueBox<UInt64>(0)

  /// - Parameter limits: what all workers may take together, and how many may start at once.
  public init(
    host: any WorkerHost, limits: NodeLimits, clock: any HearthClock, timers: any EventLoop, logger: Logger
  ) {
    let blocks = NIOLockedValueBox<UInt64>(0)
    surroundings = EndpointSurroundings(
      host: host, node: WorkerNode(limits, host: host, clock: clock, timers: timers, logger: logger), clock: clock,
      timers: timers,
      numbers: {
        blocks.withLockedValue { blocks in
          defer { blocks += 1 }
          return blocks * WorkerNumbers.blockSize + 1
        }
      }, logger: logger)
  }

  private var node: WorkerNode { surroundings.node }

  // The data plane.

  public func accept(_ exchange: any ClientExchange, function: Substring) throws -> any ExchangeReceiver {
    let (endpoint, target) = try route(exchange, function)
    let number = nextInvocation.withLockedValue { number in
      number += 1
      return number
    }
    let invocation = try Invocation(
      InvocationID(number), exchange, target: target, endpoint: endpoint, dispatcher: self)
    invocation.begin()
    return invocation
  }

  /// Where a request to a function goes now. Throws what to answer when it goes nowhere.
  func route(_ exchange: any ClientExchange, _ function: Substring) throws -> ServedFunction.Route {
    while true {
      let (served, isShuttingDown) = state.withLockedValue { ($0.routes[function], $0.isShuttingDown) }
      guard !isShuttingDown else {
        throw HearthError(.shuttingDown, "The gateway is shutting down.", retryAfter: .seconds(5))
      }
      guard let served else { throw notFound(function) }
      // A version that is taken over from is out of the table in a moment.
      if let route = try served.route(exchange) { return route }
    }
  }

  private func notFound(_ name: Substring) -> HearthError {
    let names = state.withLockedValue { $0.functions.keys.map(\.rawValue) }
    let nearest = String(name.prefix(80)).nearest(in: names)
    return HearthError(
      .functionNotFound, "No function '\(String(name).printable(limit: 80))' is deployed.",
      hint: nearest.map { "Did you mean '\($0)'?" } ?? "List what is there with 'hearth list'.")
  }

  func error(for rejection: FunctionSchedule.Rejection, of endpoint: FunctionEndpoint) -> HearthError {
    switch rejection {
    case .queueFull(let length, let retryAfter):
      HearthError(
        .queueFull, "\(length) requests wait for the \(endpoint.displayName) already.",
        hint: "Try again later, or raise max-queue-length.",
        retryAfter: retryAfter)
    case .coldStartTimeout(let timeout):
      HearthError(
        .coldStartTimeout, "No worker of the \(endpoint.displayName) became free within \(timeout.text).",
        hint: "See 'hearth workers' and 'hearth logs \(endpoint.version.name)'.")
    case .loadFailed(let reason, let retryAfter): endpoint.loadFailure(reason, retryAfter: retryAfter)
    case .memoryExhausted(let reason): endpoint.memoryFailure(reason)
    case .retired:
      state.withLockedValue({ $0.isShuttingDown })
        ? HearthError(.shuttingDown, "The gateway is shutting down.", retryAfter: .seconds(5))
        : HearthError(.functionGone, "The \(endpoint.displayName) was deleted while this request waited.")
    }
  }

  // Deploys.

  public func function(_ name: FunctionName) -> ServedFunction? { state.withLockedValue { $0.functions[name] } }

  /// The devices whose memory workers share.
  public var devices: [LedgerView] { node.ledgers.map(\.view) }

  public var functions: [ServedFunction] {
    state.withLockedValue { $0.functions.values.sorted { $0.version.name < $1.version.name } }
  }

  /// All endpoints that may have served a request since the last call.
  func recordingEndpoints() -> [FunctionEndpoint] {
    let functions = state.withLockedValue { state in
      defer { state.retired.removeAll(where: \.isEmpty) }
      return Array(state.functions.values) + state.retired
    }
    return functions.flatMap(\.endpoints)
  }

  /// Makes a version the one that is served. A version that takes over from one with workers gets a worker of its own
  /// first; when that cannot be loaded the old one stays and the reason is thrown.
  ///
  /// - Parameters:
  ///   - rests: how long the function was without requests, as recorded, the newest last.
  ///   - commit: called once nothing can fail any more, before the switch.
  public func deploy<Committed: Sendable>(
    _ version: DeployedVersion, rests: [Duration], commit: @Sendable () throws -> Committed
  ) async throws -> Committed {
    let next = make(version, rests)
    let committed: Committed
    do {
      try await next.activate(after: function(version.name)).get()
      committed = try commit()
    } catch {
      _ = next.retire()
      throw error
    }
    _ = replace(version.name, with: next)?.retire()
    node.versionTookOver(version.name, version: next.number)
    return committed
  }

  /// Serves a version as it was served before a restart, without waiting for its workers.
  public func restore(_ version: DeployedVersion, rests: [Duration]) {
    let function = make(version, rests)
    function.restore()
    _ = replace(version.name, with: function)
  }

  private func make(_ version: DeployedVersion, _ rests: [Duration]) -> ServedFunction {
    let deploys = state.withLockedValue { state in
      state.deploys += 1
      return state.deploys
    }
    return ServedFunction(version, number: deploys, rests: rests, surroundings)
  }

  public func delete(_ name: FunctionName) {
    state.withLockedValue { $0.retired.removeAll { $0.version.name == name } }
    _ = replace(name, with: nil)?.retire()
    node.versionTookOver(name, version: nil)
  }

  private func replace(_ name: FunctionName, with function: ServedFunction?) -> ServedFunction? {
    state.withLockedValue { state in
      let previous = state.functions[name]
      if let previous, function != nil { state.retired.append(previous) }
      state.functions[name] = function
      state.routes[name.rawValue[...]] = function
      return previous
    }
  }

  /// Refuses new requests, lets those in flight finish within each function's drain time-out, and ends all workers.
  public func shutDown() async {
    let functions = state.withLockedValue { state in
      state.isShuttingDown = true
      return Array(state.functions.values) + state.retired
    }
    for emptied in functions.map({ $0.retire() }) { try? await emptied.get() }
  }
}
