import HearthCore

/// Whether a request's body arrives fast enough: a client that sends a byte now and then would otherwise hold its
/// connection, and what was kept of its body, for as long as it likes.
struct BodyPace {
  private var began: HearthInstant
  private var lastByte: HearthInstant
  private var bytes = 0

  init(began: HearthInstant) {
    self.began = began
    lastByte = began
  }

  mutating func received(_ count: Int, now: HearthInstant) {
    bytes += count
    lastByte = now
  }

  /// The client was kept from sending until now: its clock starts afresh.
  mutating func resumed(now: HearthInstant) { self = BodyPace(began: now) }

  /// The error for a body that is too slow; nil while it is not.
  func problem(_ limits: HTTPLimits, now: HearthInstant) -> HearthError? {
    if lastByte.duration(to: now) > limits.bodyTimeout {
      return HearthError(.requestTimeout, "Nothing of the request's body arrived for \(limits.bodyTimeout.text).")
    }
    let elapsed = began.duration(to: now)
    guard elapsed > limits.bodyTimeout, Double(bytes) < elapsed.seconds * Double(limits.bodyRateMin) else { return nil }
    return HearthError(
      .requestTimeout, "The request's body arrives with less than \(limits.bodyRateMin) bytes a second.")
  }
}
