import HearthCore
import HearthHTTP1
import NIOCore

/// The request's half of an exchange, the same by either protocol: what was asked, by whom, and who answers it.
class IncomingRequest {
  let services: LoopServices
  let request: RequestHead
  let target: String
  let requestID: String
  let arrival: HearthInstant
  /// Who answers; nil once it has, or the client is gone.
  var receiver: (any ExchangeReceiver)?
  /// Whether all of the request has arrived.
  var requestEnded: Bool
  /// Whether the answer is whole, or will never be.
  var isEnded = false
  var pace: BodyPace

  private let client: String?
  private var bodyBytes: Int64 = 0

  init(_ request: RequestHead, _ admission: RequestGate.Admission, _ services: LoopServices, requestEnded: Bool) {
    self.request = request
    self.services = services
    self.requestEnded = requestEnded
    target = admission.target
    client = admission.client
    requestID = services.nextRequestID()
    arrival = services.now
    pace = BodyPace(began: arrival)
  }

  deinit {
    if let client { services.gate.leave(client) }
  }

  /// Names who answers, unless it has done so already.
  func begin(with receiver: any ExchangeReceiver) {
    if !isEnded { self.receiver = receiver }
  }

  /// The client is gone, or sends what nobody can read.
  func abandon() {
    let receiver = receiver
    self.receiver = nil
    receiver?.clientLeft()
  }

  /// Counts what has arrived of the body. Throws `body_too_large`.
  func count(_ bytes: Int) throws {
    bodyBytes += Int64(bytes)
    guard bodyBytes <= services.limits.bodyMax.bytes else { throw services.gate.bodyTooLarge }
    pace.received(bytes, now: services.now)
  }

  /// The error for a client that sends its body too slowly.
  func slowness(now: HearthInstant) -> HearthError? {
    requestEnded ? nil : pace.problem(services.limits, now: now)
  }
}
