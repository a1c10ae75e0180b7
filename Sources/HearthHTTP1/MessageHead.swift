import NIOCore

/// The head of an HTTP/1.1 message: its first line and header fields, kept as the bytes that arrived plus an index.
///
/// Nothing is decoded until it is asked for, and a proxy copies field lines as byte ranges.
public struct MessageHead: Sendable {
  /// Where one field stands within `bytes`.
  struct Field: Sendable {
    var nameStart: UInt32
    var nameLength: UInt32
    var valueStart: UInt32
    var valueLength: UInt32
  }

  /// The whole head, first line to empty line, readable from offset 0.
  let bytes: ByteBuffer
  var fields: [Field]

  init(bytes: ByteBuffer, fields: [Field]) {
    self.bytes = bytes
    self.fields = fields
  }

  /// The first value of a field, by lower-case name.
  public func first(_ name: StaticString) -> String? {
    for index in fields.indices where nameMatches(index, name) { return value(index) }
    return nil
  }

  public func contains(_ name: StaticString) -> Bool {
    fields.indices.contains { nameMatches($0, name) }
  }

  /// Every field as text, in the order received.
  public var described: [(name: String, value: String)] {
    fields.indices.map { index in
      let field = fields[index]
      return (bytes.getString(at: Int(field.nameStart), length: Int(field.nameLength)) ?? "", value(index))
    }
  }

  func value(_ index: Int) -> String {
    let field = fields[index]
    return bytes.getString(at: Int(field.valueStart), length: Int(field.valueLength)) ?? ""
  }

  func nameMatches(_ index: Int, _ name: StaticString) -> Bool {
    let field = fields[index]
    guard Int(field.nameLength) == name.utf8CodeUnitCount else { return false }
    return bytes.withUnsafeReadableBytes { raw in
      ASCII.equalsIgnoringCase(raw, Int(field.nameStart), name)
    }
  }

  func nameHasPrefix(_ index: Int, _ prefix: StaticString) -> Bool {
    let field = fields[index]
    guard Int(field.nameLength) >= prefix.utf8CodeUnitCount else { return false }
    return bytes.withUnsafeReadableBytes { raw in
      ASCII.equalsIgnoringCase(raw, Int(field.nameStart), prefix)
    }
  }

  /// Whether a comma-separated field holds a token, compared without case.
  func hasToken(_ name: StaticString, _ token: String) -> Bool {
    fields.indices.contains { index in
      nameMatches(index, name)
        && value(index).split(separator: ",").contains { $0.trimmingSpaces().lowercased() == token }
    }
  }
}

/// How the body of a message is delimited (RFC 9112, section 6).
public enum BodyFraming: Hashable, Sendable {
  case none
  case length(Int)
  case chunked
  /// A response that ends when its connection does.
  case untilClose

  /// The framing of a body that turned out to be empty.
  public var withoutChunks: BodyFraming { self == .chunked ? .none : self }
}

/// A request as received, checked by `RequestParser`. An object, since it is handed from one to the next many times.
public final class RequestHead: Sendable {
  public let message: MessageHead
  public let method: String
  /// The request target in origin form: path and query as sent.
  public let target: String
  /// False for HTTP/1.0.
  public let isHTTP11: Bool
  public let framing: BodyFraming
  /// Whether the client allows another request on its connection.
  public let keepsAlive: Bool
  /// Whether the client waits for `100 Continue` before it sends the body.
  public let expectsContinue: Bool
  /// The protocol that the client would switch to (RFC 9110, section 7.8); nil when it does not ask to.
  public let upgrade: String?
  /// Whether `Authorization` was meant for the gateway and stays there.
  public let hidesAuthorization: Bool

  init(
    message: MessageHead, method: String, target: String, isHTTP11: Bool, framing: BodyFraming, keepsAlive: Bool,
    expectsContinue: Bool, upgrade: String?, hidesAuthorization: Bool = false
  ) {
    self.message = message
    self.method = method
    self.target = target
    self.isHTTP11 = isHTTP11
    self.framing = framing
    self.keepsAlive = keepsAlive
    self.expectsContinue = expectsContinue
    self.upgrade = upgrade
    self.hidesAuthorization = hidesAuthorization
  }

  /// The same request, of which the function does not see `Authorization`.
  public func hidingAuthorization() -> RequestHead {
    RequestHead(
      message: message, method: method, target: target, isHTTP11: isHTTP11, framing: framing, keepsAlive: keepsAlive,
      expectsContinue: expectsContinue, upgrade: upgrade, hidesAuthorization: true)
  }
}

/// A response as received from a worker, checked by `ResponseParser`.
public struct ResponseHead: Sendable {
  public let message: MessageHead
  public let status: Int
  public let framing: BodyFraming
  public let keepsAlive: Bool
  /// Whether the head announces a body that must not follow it (HEAD, 204, 304). A worker that sends one all the same
  /// would have it taken for the next response, so its connection is not used again.
  public let announcesWithheldBody: Bool

  /// Whether the connection is another protocol's from here on (101).
  public var isUpgrade: Bool { status == 101 }
}

extension Substring {
  func trimmingSpaces() -> Substring {
    var result = self
    while let first = result.first, first == " " || first == "\t" { result = result.dropFirst() }
    while let last = result.last, last == " " || last == "\t" { result = result.dropLast() }
    return result
  }
}
