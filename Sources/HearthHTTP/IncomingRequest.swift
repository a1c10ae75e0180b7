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
  /// What the access log will say; nil without one, or when it has been said.
  private var entry: AccessEntry?

  init(_ request: RequestHead, _ admission: RequestGate.Admission, _ services: LoopServices, requestEnded: Bool) {
    self.request = request
    self.services = services
    self.requestEnded = requestEnded
    target = admission.target
    client = admission.client
    requestID = services.nextRequestID()
    arrival = services.now
    pace = BodyPace(began: arrival)
    if services.accessLines != nil { entry = makeEntry() }
  }

  deinit {
    if let client { services.gate.leave(client) }
  }

  /// The client's address, as the access log has it.
  var clientAddress: String { "" }

  private func makeEntry() -> AccessEntry {
    var entry = AccessEntry(
      time: services.unixTime(of: arrival), request: requestID, client: clientAddress, method: request.method,
      path: request.target.prefix { $0 != "?" })
    entry.clientRequest = clientRequestID
    entry.traceParent = request.message.first("traceparent")
    return entry
  }

  /// The id that the client gave the request, if it is one: it is given back and logged, and nothing depends on it.
  var clientRequestID: String? {
    guard let id = request.message.first("x-request-id"), (1...128).contains(id.utf8.count) else { return nil }
    return id.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } ? id : nil
  }

  // The answer, as far as it is the same by either protocol.

  /// Writes what the gateway adds to the head of a function's answer.
  func writeFields(_ response: ResponseHead, _ stamp: ResponseStamp, into head: inout ByteBuffer) {
    answerBegan(response.status, stamp)
    stamp.write(into: &head)
    if let id = clientRequestID, !response.message.contains("x-request-id") {
      head.writeString("x-request-id: \(id)\r\n")
    }
    if !response.message.contains("date") { head.writeString(services.dateField) }
  }

  /// Writes the head of an answer that carries an error, and returns its body. HEAD gets none.
  func writeHead(
    _ error: HearthError, source: ErrorSource, _ stamp: ResponseStamp?, into head: inout ByteBuffer
  ) -> String {
    let body = ErrorEnvelope.json(error, request: requestID, source: source)
    answerBegan(error.code.status, code: error.code, stamp)
    if request.method != "HEAD" { answered(body.utf8.count) }
    error.writeHead(request: requestID, clientRequest: clientRequestID, stamp, into: &head)
    head.writeString(services.dateField)
    return body
  }

  /// An answer that had begun ends here, for this reason.
  func cutAnswer(_ error: HearthError) {
    isEnded = true
    receiver = nil
    noteFailure(error.code)
    logEnd(.cut)
  }

  /// For the access log: the answer begins.
  private func answerBegan(_ status: Int, code: ErrorCode? = nil, _ stamp: ResponseStamp?) {
    guard entry != nil else { return }
    entry!.status = status
    entry!.code = code
    entry!.stamp = stamp
  }

  /// For the access log: why an answer that had begun is not what it should have been.
  func noteFailure(_ code: ErrorCode) {
    if entry != nil { entry!.code = code }
  }

  /// For the access log: bytes of the answer's body were written.
  func answered(_ bytes: Int) {
    if entry != nil { entry!.bytesOut += Int64(bytes) }
  }

  /// For the access log: the request is over.
  func logEnd(_ end: AccessEntry.End) {
    guard var entry else { return }
    self.entry = nil
    entry.end = end
    entry.bytesIn = bodyBytes
    entry.duration = arrival.duration(to: services.now).nanoseconds
    services.accessLines?.add(entry)
  }

  /// Names who answers, unless it has done so already.
  func begin(with receiver: any ExchangeReceiver) {
    if !isEnded { self.receiver = receiver }
  }

  /// The client is gone.
  func clientLeft() {
    abandon()
    logEnd(.left)
  }

  /// Nobody waits for the answer any more: the client is gone, or sends what nobody can read.
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
