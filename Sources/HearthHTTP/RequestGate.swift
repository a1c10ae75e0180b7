import HearthCore
import HearthHTTP1
import NIOConcurrencyHelpers

/// What every request passes before a function hears of it, whatever protocol it came by.
struct RequestGate: Sendable {
  let limits: HTTPLimits
  let router: any FunctionRouter
  private let inFlight = NIOLockedValueBox<[String: Int]>([:])

  init(limits: HTTPLimits, router: any FunctionRouter) {
    self.limits = limits
    self.router = router
  }

  /// A request that may go on.
  struct Admission: Sendable {
    let name: Substring
    /// Path and query below the function's root.
    let target: String
    /// Whose request it is, where requests of a client are counted; given back to `leave`.
    var client: String?

    /// For a request that is answered with an error instead.
    static let refused = Admission(name: "", target: "")
  }

  /// Checks key, path, declared size and the client's share. Throws what to answer.
  ///
  /// - Parameter address: the client's, by which it is counted where there are no keys.
  func admit(_ request: inout RequestHead, from address: () -> String) throws -> Admission {
    let key = try authorise(&request)
    let (name, target) = try FunctionPath.split(request.target)
    if case .length(let length) = request.framing, length > limits.bodyMax.bytes { throw bodyTooLarge }
    var admission = Admission(name: name, target: target)
    if limits.requestsPerClientMax > 0 { admission.client = try enter(key ?? address()) }
    return admission
  }

  /// The request of a counted client has ended.
  func leave(_ client: String) {
    inFlight.withLockedValue { inFlight in
      let count = (inFlight[client] ?? 1) - 1
      inFlight[client] = count > 0 ? count : nil
    }
  }

  var bodyTooLarge: HearthError {
    HearthError(
      .bodyTooLarge, "The request's body is larger than \(limits.bodyMax.rounded).",
      hint: "Send less, or raise body-max in hearth.yaml.")
  }

  /// Checks the key, if one is needed, and keeps it from the function. Returns which key it is.
  private func authorise(_ request: inout RequestHead) throws -> String? {
    guard !limits.keys.isEmpty else { return nil }
    let given = request.message.first("authorization") ?? ""
    var found: Int?
    for (index, key) in limits.keys.enumerated() where Bearer.matches(given, key: key) { found = index }
    guard let found else {
      throw HearthError(
        .unauthorized, "This gateway needs a key.", hint: "Send 'Authorization: Bearer KEY' with a key of its owner's.")
    }
    request = request.hidingAuthorization()
    return "key \(found)"
  }

  private func enter(_ client: String) throws -> String {
    let isAllowed = inFlight.withLockedValue { inFlight in
      let count = inFlight[client] ?? 0
      guard count < limits.requestsPerClientMax else { return false }
      inFlight[client] = count + 1
      return true
    }
    guard isAllowed else {
      throw HearthError(
        .clientBusy, "\(limits.requestsPerClientMax) requests of this client are in flight already.",
        hint: "Wait for one of them, or raise requests-per-client-max in hearth.yaml.", retryAfter: .seconds(1))
    }
    return client
  }
}

/// Paths of the data plane: `/functions/NAME`, and whatever below it is the function's own.
enum FunctionPath {
  private static let prefix: StaticString = "/functions/"

  static func split(_ target: String) throws -> (name: Substring, target: String) {
    guard let parts = NamedPath.split(target, after: prefix) else {
      throw HearthError(
        .routeNotFound, "There is nothing at this path.", hint: "Call a function: POST /functions/NAME.")
    }
    return parts
  }
}
