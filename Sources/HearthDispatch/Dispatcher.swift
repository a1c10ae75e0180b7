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
    var endpoints: [FunctionName: FunctionEndpoint] = [:]
    /// The same by the name as it stands in a path.
    var routes: [Substring: FunctionEndpoint] = [:]
    /// Versions that are served no more and may still finish requests.
    var retired: [FunctionEndpoint] = []
    var deploys = 0
    var isShuttingDown = false
  }

  private let host: any WorkerHost
  private let node: WorkerNode
  private let clock: any HearthClock
  private let timers: any EventLoop
  private let logger: Logger
  private let state = NIOLockedValueBox(State())
  private let nextInvocation = NIOLockedValueBox<UInt64>(0)
  /// Blocks of numbers for workers that were given out.
  private let numberBlocks = NIOLockedValueBox<UInt64>(0)

  /// - Parameters:
  ///   - workersMemory: what all workers may take together.
  ///   - startsMax: how many workers may be starting at once.
  public init(
    host: any WorkerHost, workersMemory: ByteSize, startsMax: Int, clock: any HearthClock, timers: any EventLoop,
    logger: Logger
  ) {
    self.host = host
    node = WorkerNode(memory: workersMemory, startsMax: startsMax, clock: clock, timers: timers, logger: logger)
    self.clock = clock
    self.timers = timers
    self.logger = logger
  }

  // The data plane.

  public func accept(_ exchange: any ClientExchange, function: Substring) throws -> any ExchangeReceiver {
    let (endpoint, isShuttingDown) = state.withLockedValue { ($0.routes[function], $0.isShuttingDown) }
    guard !isShuttingDown else {
      throw HearthError(.shuttingDown, "The gateway is shutting down.", retryAfter: .seconds(5))
    }
    guard let endpoint else { throw notFound(function) }
    let number = nextInvocation.withLockedValue { number in
      number += 1
      return number
    }
    let invocation = try Invocation(InvocationID(number), exchange, endpoint: endpoint, dispatcher: self)
    invocation.begin()
    return invocation
  }

  private func notFound(_ name: Substring) -> HearthError {
    let names = state.withLockedValue { $0.endpoints.keys.map(\.rawValue) }
    let nearest = String(name.prefix(80)).nearest(in: names)
    return HearthError(
      .functionNotFound, "No function '\(String(name).printable(limit: 80))' is deployed.",
      hint: nearest.map { "Did you mean '\($0)'?" } ?? "List what is there with 'hearth list'.")
  }

  func error(for rejection: FunctionSchedule.Rejection, of name: FunctionName) -> HearthError {
    switch rejection {
    case .queueFull(let length, let retryAfter):
      HearthError(
        .queueFull, "\(length) requests wait for '\(name)' already.",
        hint: "Try again later, or raise max-queue-length.",
        retryAfter: retryAfter)
    case .coldStartTimeout(let timeout):
      HearthError(
        .coldStartTimeout, "No worker of '\(name)' became free within \(timeout.text).",
        hint: "See 'hearth workers' and 'hearth logs \(name)'.")
    case .loadFailed(let reason, let retryAfter): LoadFailure.error(name, reason, retryAfter: retryAfter)
    case .retired:
      state.withLockedValue({ $0.isShuttingDown })
        ? HearthError(.shuttingDown, "The gateway is shutting down.", retryAfter: .seconds(5))
        : HearthError(.functionGone, "The function '\(name)' was deleted while this request waited.")
    }
  }

  // Deploys.

  public func endpoint(_ name: FunctionName) -> FunctionEndpoint? { state.withLockedValue { $0.endpoints[name] } }

  public var endpoints: [FunctionEndpoint] {
    state.withLockedValue { $0.endpoints.values.sorted { $0.version.name < $1.version.name } }
  }

  /// All endpoints that may have served a request since the last call.
  func recordingEndpoints() -> [FunctionEndpoint] {
    state.withLockedValue { state in
      defer { state.retired.removeAll { $0.isEmpty } }
      return Array(state.endpoints.values) + state.retired
    }
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
    let next = makeEndpoint(version, rests)
    let committed: Committed
    let isWarm = endpoint(version.name)?.view().workers.isEmpty == false
    do {
      let initial = max(version.policy.workersInitial ?? 0, version.policy.workersMin)
      try await next.activate(workers: isWarm ? max(1, initial) : initial).get()
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
    let endpoint = makeEndpoint(version, rests)
    _ = endpoint.activate(workers: version.policy.workersMin)
    _ = replace(version.name, with: endpoint)
  }

  private func makeEndpoint(_ version: DeployedVersion, _ rests: [Duration]) -> FunctionEndpoint {
    let deploys = state.withLockedValue { state in
      state.deploys += 1
      return state.deploys
    }
    return FunctionEndpoint(
      version, number: deploys, rests: rests, host: host, node: node, clock: clock, timers: timers,
      numbers: { [numberBlocks] in
        numberBlocks.withLockedValue { blocks in
          defer { blocks += 1 }
          return blocks * WorkerNumbers.blockSize + 1
        }
      }, logger: logger)
  }

  public func delete(_ name: FunctionName) {
    state.withLockedValue { $0.retired.removeAll { $0.version.name == name } }
    _ = replace(name, with: nil)?.retire()
    node.versionTookOver(name, version: nil)
  }

  private func replace(_ name: FunctionName, with endpoint: FunctionEndpoint?) -> FunctionEndpoint? {
    state.withLockedValue { state in
      let previous = state.endpoints[name]
      if let previous, endpoint != nil { state.retired.append(previous) }
      state.endpoints[name] = endpoint
      state.routes[name.rawValue[...]] = endpoint
      return previous
    }
  }

  /// Refuses new requests, lets those in flight finish within each function's drain time-out, and ends all workers.
  public func shutDown() async {
    let endpoints = state.withLockedValue { state in
      state.isShuttingDown = true
      return Array(state.endpoints.values) + state.retired
    }
    for emptied in endpoints.map({ $0.retire() }) { try? await emptied.get() }
  }
}
