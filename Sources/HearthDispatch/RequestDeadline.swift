import HearthCore
import HearthHTTP1
import NIOCore

/// Until when a client waits, from the field `Hearth-Deadline`: a duration from the request's arrival such as `1500ms`
/// or `30s`.
struct RequestDeadline {
  /// Nil: the client waits as long as it takes.
  let instant: HearthInstant?
  private let arrival: HearthInstant
  private var timer: Scheduled<Void>?

  /// Throws `request_malformed` when the field is not a duration.
  init(_ request: RequestHead, arrival: HearthInstant) throws {
    self.arrival = arrival
    guard let text = request.message.first("hearth-deadline") else {
      instant = nil
      return
    }
    guard let duration = Duration(hearth: text), duration > .zero else {
      throw HearthError(
        .requestMalformed, "'\(text.printable(limit: 40))' is not a value of Hearth-Deadline.",
        hint: "Send how long the answer may take, such as 1500ms or 30s.")
    }
    instant = arrival.advanced(by: duration)
  }

  /// Calls `passed` once, on the loop, when the deadline passes before `cancel`.
  mutating func schedule(on loop: any EventLoop, passed: @escaping () -> Void) {
    guard let instant else { return }
    let delay = TimeAmount.nanoseconds(arrival.duration(to: instant).nanoseconds)
    timer = loop.assumeIsolated().scheduleTask(in: delay, passed)
  }

  mutating func cancel() {
    timer?.cancel()
    timer = nil
  }

  /// How long the answer may still take, by this deadline and by another limit; nil when there is neither.
  func remaining(now: HearthInstant, limit: Duration?) -> Duration? {
    guard let instant else { return limit }
    let left = now.duration(to: instant)
    return limit.map { min($0, left) } ?? left
  }
}
