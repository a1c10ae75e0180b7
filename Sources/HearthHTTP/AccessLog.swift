import Foundation
import HearthCore
import HearthHTTP1
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// The access log: a line of JSON for each request, written by a thread of its own. docs/configuration.md has its
/// fields.
///
/// Bounded: when the disk does not keep up, lines are left out, and a line says how many. The file is opened anew when
/// it was renamed or removed, so that logrotate(8) needs no signal.
public final class AccessLog: Sendable {
  /// 8 MiB: half a minute of 1,000 requests a second.
  static let pendingMax = 8 << 20

  private struct State {
    var pending = ByteBuffer()
    var count = 0
    var dropped = 0
    var isWriting = false
  }

  /// The file as it is open now. Touched by one thread at a time: the one that writes.
  private final class File: @unchecked Sendable {
    let path: String
    var handle: UnsafeMutablePointer<FILE>?

    init(_ path: String) { self.path = path }

    /// Opens the file unless it is open and still has its name.
    func open() -> UnsafeMutablePointer<FILE>? {
      var named = stat()
      var opened = stat()
      if let handle, stat(path, &named) == 0, fstat(fileno(handle), &opened) == 0, named.st_ino == opened.st_ino {
        return handle
      }
      if let handle { fclose(handle) }
      handle = fopen(path, "ae")
      return handle
    }
  }

  private let file: File
  private let state = NIOLockedValueBox(State())

  /// Throws `configuration_invalid` when the file cannot be written.
  public init(path: String) throws {
    file = File(path)
    guard file.open() != nil else {
      throw HearthError(
        .configurationInvalid, "The access log '\(path)' cannot be written.", hint: "Set access-log to another file.")
    }
  }

  /// Takes whole lines of `count` requests.
  func take(_ lines: ByteBuffer, count: Int) {
    let begins = state.withLockedValue { state in
      if state.pending.readableBytes + lines.readableBytes > AccessLog.pendingMax {
        state.dropped += count
      } else {
        state.pending.writeImmutableBuffer(lines)
        state.count += count
      }
      defer { state.isWriting = true }
      return !state.isWriting
    }
    if begins { NIOThreadPool.singleton.submit { [self] _ in write() } }
  }

  /// Writes what was taken. Blocks; for the end, when nothing more comes.
  func flush() {
    // 5 s: a disk that does not answer must not keep the gateway from ending.
    for _ in 0..<500 where state.withLockedValue({ $0.isWriting }) { usleep(10_000) }
    if !state.withLockedValue({ $0.isWriting }) { write() }
  }

  private func write() {
    while true {
      let (bytes, count, dropped) = state.withLockedValue { state in
        defer {
          state.pending = ByteBuffer()
          (state.count, state.dropped) = (0, 0)
        }
        if state.count == 0, state.dropped == 0 { state.isWriting = false }
        return (state.pending, state.count, state.dropped)
      }
      guard count > 0 || dropped > 0 else { return }
      guard let handle = file.open() else {
        // Said once the file can be written again.
        return state.withLockedValue { state in
          state.dropped += count + dropped
          state.isWriting = false
        }
      }
      _ = bytes.withUnsafeReadableBytes { fwrite($0.baseAddress, 1, $0.count, handle) }
      if dropped > 0 { fputs("{\"dropped\":\(dropped)}\n", handle) }
      fflush(handle)
    }
  }
}

/// The lines of one event loop that are not handed over yet.
final class AccessLines {
  /// 64 KiB: some 200 lines.
  private static let handOverAt = 64 * 1024

  private let log: AccessLog
  private var lines = ByteBuffer()
  private var count = 0

  init(_ log: AccessLog) { self.log = log }

  func add(_ entry: AccessEntry) {
    entry.write(to: &lines)
    count += 1
    if lines.readableBytes >= AccessLines.handOverAt { handOver() }
  }

  /// Called about four times a second.
  func handOver() {
    guard count > 0 else { return }
    log.take(lines, count: count)
    lines.clear()
    count = 0
  }
}

/// What the access log says of one request. Durations are seconds, sizes bytes of bodies.
struct AccessEntry {
  /// How it ended: with a whole answer, with an answer that was cut, or with a client that left.
  enum End: String {
    case whole
    case cut
    case left
  }

  /// Nanoseconds since 1970.
  var time: Int64
  var request: String
  var client: String
  var method = ""
  /// Without the query, which may hold what is not for logs.
  var path: Substring = ""
  var status = 0
  var code: ErrorCode?
  var bytesIn: Int64 = 0
  var bytesOut: Int64 = 0
  var duration: Int64 = 0
  var stamp: ResponseStamp?
  var end = End.whole
  /// The client's own id and its place in a distributed trace (W3C Trace Context), if it sent them.
  var clientRequest: String?
  var traceParent: String?

  func write(to buffer: inout ByteBuffer) {
    var line =
      "{\"time\":\"\(TimeText.rfc3339(unixNanoseconds: time))\",\"request\":\"\(request)\",\"client\":\"\(client)\""
    line += ",\"method\":\(JSONText.quoted(method)),\"path\":\(JSONText.quoted(String(path))),\"status\":\(status)"
    if let code { line += ",\"code\":\"\(code)\"" }
    line += ",\"in\":\(bytesIn),\"out\":\(bytesOut),\"duration\":\(TimeText.seconds(nanoseconds: duration))"
    if let stamp {
      line += ",\"queue\":\(TimeText.seconds(nanoseconds: stamp.queue))"
      line += ",\"exec\":\(TimeText.seconds(nanoseconds: stamp.execution))"
      let started = stamp.spawn + stamp.load
      if started > 0 { line += ",\"started\":\(TimeText.seconds(nanoseconds: started))" }
      if let start = stamp.start { line += ",\"start\":\"\(start)\"" }
      line += ",\"version\":\"\(stamp.version)\""
    }
    if let clientRequest { line += ",\"client-request\":\(JSONText.quoted(clientRequest))" }
    if let traceParent { line += ",\"traceparent\":\(JSONText.quoted(traceParent))" }
    buffer.writeString(line + ",\"end\":\"\(end.rawValue)\"}\n")
  }
}
