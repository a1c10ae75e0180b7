import HearthCore
import NIOCore

/// One request of a client and the way back to it, as dispatch sees it. Every call happens on `eventLoop`.
///
/// The response calls come in the order `begin`, any number of `write`, `end`; `fail` may come instead of any of them.
public protocol ClientExchange: AnyObject {
  var eventLoop: any EventLoop { get }
  var request: RequestHead { get }
  /// The path and query below the function's root.
  var target: String { get }
  var requestID: String { get }
  var arrival: HearthInstant { get }

  /// Whether the request's body should stop arriving for now.
  func setBodyPaused(_ isPaused: Bool)
  /// Sends the response head.
  func begin(_ response: ResponseHead, _ stamp: ResponseStamp)
  func write(_ bytes: ByteBuffer)
  func flush()
  func end()
  /// For the access log: the answer that has begun tells of an error.
  func noteFailure(_ code: ErrorCode)
  /// Answers with an error, or cuts the response visibly short when its head was sent already.
  func fail(_ error: HearthError, source: ErrorSource, _ stamp: ResponseStamp?)
}

/// Whoever answers an exchange. Every call happens on the exchange's event loop.
public protocol ExchangeReceiver: AnyObject {
  func requestBody(_ bytes: ByteBuffer)
  func requestBodyEnded()
  /// What had arrived has been handed over.
  func requestReadCompleted()
  /// The client is gone and hears nothing any more.
  func clientLeft()
  /// Whether the client takes more of the response now.
  func clientWritabilityChanged(isWritable: Bool)
  /// Called about four times a second, so that time limits cost nothing per request.
  func timePassed(now: HearthInstant)
}

/// What the data plane knows of what stands behind it.
public protocol FunctionRouter: Sendable {
  /// Takes a request for the function. Throws what to answer when there is no such function.
  func accept(_ exchange: any ClientExchange, function: Substring) throws -> any ExchangeReceiver
}
