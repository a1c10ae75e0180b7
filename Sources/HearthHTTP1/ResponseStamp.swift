import NIOCore

/// What the gateway says of an answer, as header fields: `Hearth-Request-Id`, `Hearth-Version`, `Hearth-Start`,
/// `Hearth-Model-State` and `Server-Timing` (W3C Server Timing; milliseconds).
public struct ResponseStamp: Sendable {
  public var requestID: String
  /// The short digest of the version that answered.
  public var version: String
  /// How the worker came up; nil when none took the request.
  public var start: String?
  /// Whether the model was there: `hit` or `loaded`; nil where the function is not one of many models.
  public var modelState: String?
  /// How long the request waited for anything but the start of its worker, in nanoseconds.
  public var queue: Int64 = 0
  /// How long its worker took to exist, and to load, in nanoseconds; 0 when it was there already.
  public var spawn: Int64 = 0
  public var load: Int64 = 0
  /// From the worker's getting the request to the first byte of its answer, in nanoseconds.
  public var execution: Int64 = 0

  public init(requestID: String, version: String) {
    self.requestID = requestID
    self.version = version
  }

  /// Writes the field lines, each ended by CRLF.
  public func write(into buffer: inout ByteBuffer) {
    buffer.writeStaticString("hearth-request-id: ")
    buffer.writeString(requestID)
    buffer.writeStaticString("\r\nhearth-version: ")
    buffer.writeString(version)
    if let start {
      buffer.writeStaticString("\r\nhearth-start: ")
      buffer.writeString(start)
    }
    if let modelState {
      buffer.writeStaticString("\r\nhearth-model-state: ")
      buffer.writeString(modelState)
    }
    buffer.writeStaticString("\r\nserver-timing: queue;dur=")
    ResponseStamp.writeMilliseconds(queue, into: &buffer)
    // Weights are fetched when a version is deployed, never while a request waits.
    buffer.writeStaticString(", fetch;dur=0, spawn;dur=")
    ResponseStamp.writeMilliseconds(spawn, into: &buffer)
    buffer.writeStaticString(", load;dur=")
    ResponseStamp.writeMilliseconds(load, into: &buffer)
    buffer.writeStaticString(", exec;dur=")
    ResponseStamp.writeMilliseconds(execution, into: &buffer)
    buffer.writeStaticString("\r\n")
  }

  /// Milliseconds with three decimals, digit by digit: a formatter would cost more than the rest of the head.
  private static func writeMilliseconds(_ nanoseconds: Int64, into buffer: inout ByteBuffer) {
    var microseconds = UInt64(max(0, nanoseconds)) / 1_000
    var digits: (UInt64, Int) = (0, 0)
    repeat {
      digits.0 = digits.0 << 4 | microseconds % 10
      digits.1 += 1
      microseconds /= 10
    } while (microseconds > 0 || digits.1 < 4) && digits.1 < 16
    // The digits lie in the nibbles of a word, the last one written first.
    while digits.1 > 0 {
      if digits.1 == 3 { buffer.writeInteger(UInt8(ascii: ".")) }
      buffer.writeInteger(UInt8(ascii: "0") + UInt8(digits.0 & 15))
      digits.0 >>= 4
      digits.1 -= 1
    }
  }
}
