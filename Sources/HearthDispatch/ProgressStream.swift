import Foundation
import HearthCore
import HearthHTTP1
import NIOCore

/// The answer of a request that is told how it stands while it waits, as server-sent events (HTML, section 9.2):
/// any number of `progress`, then one `answer` or `error`. A function that answers with events itself sends its own
/// behind those of the wait.
struct ProgressStream {
  /// 16 MiB: an answer that goes into one event is held whole before.
  private static let answerBytesMax = 16 * 1024 * 1024
  /// 1 s between two events that say the same but for the time.
  private static let pause = Duration.seconds(1)

  static let head: ResponseHead = {
    var text = ByteBuffer(
      staticString: """
        HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
        transfer-encoding: chunked\r\n\r\n
        """)
    var parser = ResponseParser(bytesMax: 1024)
    guard let head = try? parser.parse(&text, requestMethod: "GET") else {
      preconditionFailure("the head of an event stream is valid")
    }
    return head
  }()

  /// Whether the stream's head was sent, so that everything else comes as events.
  private(set) var hasBegun = false
  private var last: (standing: Standing, at: HearthInstant)?
  /// The answer that goes into one event, while it arrives; nil when the function sends events itself.
  private var answer: (status: Int, contentType: String, body: ByteBuffer)?
  private var isTooLarge = false

  /// Whether the function's answer is kept for one event, so that nothing of it was sent yet.
  var isCollecting: Bool { answer != nil }

  /// Whether the request asks for progress: it accepts events, or prefers `progress` (RFC 7240).
  static func isWanted(by request: RequestHead) -> Bool {
    guard request.method != "HEAD" else { return false }
    return request.message.first("accept")?.contains("text/event-stream") == true
      || request.message.first("prefer")?.contains("progress") == true
  }

  /// The event for how the request stands now; nil when there is nothing new to say.
  mutating func event(_ standing: Standing, now: HearthInstant) -> ByteBuffer? {
    if let last, last.standing.isSame(as: standing), last.at.duration(to: now) < ProgressStream.pause { return nil }
    last = (standing, now)
    hasBegun = true
    return ProgressStream.event("progress", standing.json)
  }

  /// The function begins to answer: with events of its own, or with a body that is kept for one event.
  mutating func answerBegan(_ head: ResponseHead) {
    let contentType = head.message.first("content-type") ?? "application/octet-stream"
    guard head.status != 200 || !contentType.hasPrefix("text/event-stream") else { return }
    answer = (head.status, contentType, ByteBuffer())
  }

  /// Keeps a part of the answer; false when the function's own events are passed on.
  mutating func keeps(_ bytes: ByteBuffer) -> Bool {
    guard answer != nil else { return false }
    if answer!.body.readableBytes + bytes.readableBytes > ProgressStream.answerBytesMax {
      isTooLarge = true
    } else {
      answer!.body.writeImmutableBuffer(bytes)
    }
    return true
  }

  /// The event for the whole answer; nil when the function sent its own.
  func answerEvent(request: String) -> ByteBuffer? {
    guard let answer else { return nil }
    guard !isTooLarge else {
      let limit = ByteSize(bytes: Int64(ProgressStream.answerBytesMax)).rounded
      let error = HearthError(
        .answerTooLarge, "The answer is larger than \(limit), which is the most that one event holds.",
        hint: "Ask without progress, or let the function stream events.")
      return ProgressStream.event(error, request: request)
    }
    let head = "{\"status\":\(answer.status),\"content-type\":\(JSONText.quoted(answer.contentType)),"
    let isJSON = answer.contentType.hasPrefix("application/json") && answer.body.readableBytes > 0
    if isJSON { return ProgressStream.event("answer", head + "\"body\":\(String(buffer: answer.body))}") }
    if answer.contentType.hasPrefix("text/") {
      return ProgressStream.event("answer", head + "\"body\":\(JSONText.quoted(String(buffer: answer.body)))}")
    }
    let encoded = Data(answer.body.readableBytesView).base64EncodedString()
    return ProgressStream.event("answer", head + "\"base64\":\"\(encoded)\"}")
  }

  static func event(_ error: HearthError, request: String) -> ByteBuffer {
    event("error", ErrorEnvelope.json(error, request: request, source: .gateway))
  }

  /// One event. Data of several lines becomes several `data` fields, which a reader joins again.
  private static func event(_ name: String, _ data: String) -> ByteBuffer {
    var event = ByteBuffer(string: "event: \(name)\n")
    for line in data.utf8.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
      event.writeStaticString("data: ")
      event.writeBytes(line)
      event.writeStaticString("\n")
    }
    event.writeStaticString("\n")
    return event
  }
}

/// How a request stands that has no worker yet.
struct Standing {
  enum State: String {
    /// Workers are there and busy.
    case queued
    /// A worker's process comes to life.
    case starting
    /// The function's code loads.
    case loading
  }

  var state: State
  /// How many requests are before it.
  var position: Int
  /// How far the load is, from 0 to 1, and what it says of itself, where the function tells.
  var fraction: Double?
  var note: String?
  /// How long the wait will last, as earlier starts and requests tell.
  var eta: Duration?

  func isSame(as other: Standing) -> Bool {
    state == other.state && position == other.position && fraction == other.fraction && note == other.note
  }

  var json: String {
    var members = ["\"state\":\"\(state.rawValue)\"", "\"position\":\(position)"]
    if let fraction { members.append("\"fraction\":\((fraction * 1000).rounded() / 1000)") }
    if let note { members.append("\"note\":\(JSONText.quoted(note))") }
    if let eta { members.append("\"eta\":\((eta.seconds * 10).rounded() / 10)") }
    return "{\(members.joined(separator: ","))}"
  }
}
