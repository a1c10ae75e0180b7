/// The one error type of Hearth: what happened, what to do about it, and a stable code to match on.
public struct HearthError: Error, Sendable, CustomStringConvertible {
  /// The stable code; `docs/errors.md` lists them all.
  public let code: ErrorCode
  /// What happened, in one sentence fit for the person who caused it. Holds no path of the gateway's machine.
  public let message: String
  /// What to do, in one sentence; nil where the message says it all.
  public let hint: String?
  /// What lies behind it, for the gateway's log only; never sent to a client.
  public let cause: String?
  /// After how long a retry may succeed; sent as `Retry-After`.
  public let retryAfter: Duration?

  public init(
    _ code: ErrorCode, _ message: String, hint: String? = nil, cause: String? = nil, retryAfter: Duration? = nil
  ) {
    self.code = code
    self.message = message
    self.hint = hint
    self.cause = cause
    self.retryAfter = retryAfter
  }

  public var description: String {
    let sentence = "\(code): \(message)" + (hint.map { " \($0)" } ?? "")
    return cause.map { "\(sentence) [\($0)]" } ?? sentence
  }
}

/// Who produced an error: the gateway itself or the function behind it.
public enum ErrorSource: String, Sendable {
  case gateway
  case function
}
