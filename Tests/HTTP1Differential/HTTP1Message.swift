/// One HTTP/1.1 message as a parser understood it, in a form that two parsers can be compared by.
public struct HTTP1Message: Equatable, Sendable {
  /// Method and target of a request, or the status of a response.
  public var start: String
  /// Lower-case names and values, in order.
  public var fields: [String]
  public var body: [UInt8]
}

/// What a parser made of a stream of bytes.
public struct HTTP1Reading: Sendable {
  public var messages: [HTTP1Message] = []
  /// Whether it refused the bytes behind the last of `messages`.
  public var isRefused = false
  /// The message that is being read.
  var open: HTTP1Message?
}

public enum HTTP1Side: String, Sendable, CaseIterable {
  case request
  case response
}
