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
    // 320: names and separators, and five numbers of at most 20 bytes.
    let words = requestID.utf8.count + version.utf8.count + (start?.utf8.count ?? 0) + (modelState?.utf8.count ?? 0)
    buffer.writeHead(bytesMax: words + 320) { head in
      head.add(literal: "hearth-request-id: ")
      head.add(requestID)
      head.add(literal: "\r\nhearth-version: ")
      head.add(version)
      if let start {
        head.add(literal: "\r\nhearth-start: ")
        head.add(start)
      }
      if let modelState {
        head.add(literal: "\r\nhearth-model-state: ")
        head.add(modelState)
      }
      head.add(literal: "\r\nserver-timing: queue;dur=")
      head.add(milliseconds: queue)
      // Weights are fetched when a version is deployed, never while a request waits.
      head.add(literal: ", fetch;dur=0, spawn;dur=")
      head.add(milliseconds: spawn)
      head.add(literal: ", load;dur=")
      head.add(milliseconds: load)
      head.add(literal: ", exec;dur=")
      head.add(milliseconds: execution)
      head.add(literal: "\r\n")
    }
  }
}
