import NIOCore

/// What the gateway says of a request to its worker, as header fields: `Hearth-Request-Id`, `Hearth-Attempt` and
/// `Hearth-Timeout-Ms`.
public struct RequestStamp: Sendable {
  public var requestID: String
  /// How often it has been sent to a worker, this time included.
  public var attempt = 1
  /// How long the answer may take, in milliseconds; nil: as long as it takes.
  public var timeout: Int?

  public init(requestID: String, attempt: Int = 1, timeout: Int? = nil) {
    self.requestID = requestID
    self.attempt = attempt
    self.timeout = timeout
  }

  func write(into buffer: inout ByteBuffer) {
    // 100: names and separators, and two numbers of at most 20 bytes.
    buffer.writeHead(bytesMax: requestID.utf8.count + 100) { head in
      head.add(literal: "hearth-request-id: ")
      head.add(requestID)
      if attempt > 1 {
        head.add(literal: "\r\nhearth-attempt: ")
        head.add(number: attempt)
      }
      if let timeout {
        head.add(literal: "\r\nhearth-timeout-ms: ")
        head.add(number: max(0, timeout))
      }
      head.add(literal: "\r\n")
    }
  }
}
