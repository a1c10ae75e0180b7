import NIOCore

/// Writes message heads towards the other side, in one canonical form, without the fields that belong to a single
/// connection (RFC 9110, section 7.6.1).
public enum HeadWriter {
  /// Writes the request as the worker sees it.
  ///
  /// - Parameters:
  ///   - target: path and query below the function's own root.
  ///   - framing: how the body is delimited towards the worker; a length may take the place of chunks.
  ///   - passesUpgrade: whether the worker hears that the client would switch to another protocol.
  ///   - stamp: what Hearth says of the request.
  public static func write(
    _ request: RequestHead, target: String, framing: BodyFraming, passesUpgrade: Bool = false, _ stamp: RequestStamp,
    into buffer: inout ByteBuffer
  ) {
    buffer.writeHead(bytesMax: request.method.utf8.count + target.utf8.count + 12) { head in
      head.add(request.method)
      head.add(ASCII.space)
      head.add(target)
      head.add(literal: " HTTP/1.1\r\n")
    }
    copyFields(of: request.message, hidesAuthorization: request.hidesAuthorization, into: &buffer)
    switch (request.framing, framing) {
    case (.chunked, .chunked): buffer.writeStaticString("transfer-encoding: chunked\r\n")
    case (.chunked, .length(let count)): buffer.writeString("content-length: \(count)\r\n")
    case (.chunked, _): buffer.writeStaticString("content-length: 0\r\n")
    default: break
    }
    if !request.isHTTP11, !request.message.contains("host") { buffer.writeStaticString("host: hearth\r\n") }
    if passesUpgrade, let upgrade = request.upgrade {
      buffer.writeString("connection: upgrade\r\nupgrade: \(upgrade)\r\n")
    }
    stamp.write(into: &buffer)
    buffer.writeStaticString("\r\n")
  }

  /// Writes the response as the client sees it, without the empty line that ends its head.
  ///
  /// - Parameter framing: how the body is delimited towards the client.
  public static func write(
    _ response: ResponseHead, framing: BodyFraming, keepsAlive: Bool, into buffer: inout ByteBuffer
  ) {
    let reason = HTTPStatus.reason(response.status)
    buffer.writeHead(bytesMax: reason.utf8.count + 16) { head in
      head.add(literal: "HTTP/1.1 ")
      head.add(number: response.status)
      head.add(ASCII.space)
      head.add(reason)
      head.add(literal: "\r\n")
    }
    copyFields(of: response.message, into: &buffer)
    if case .chunked = framing { buffer.writeStaticString("transfer-encoding: chunked\r\n") }
    if response.isUpgrade {
      buffer.writeString("connection: upgrade\r\nupgrade: \(response.message.first("upgrade") ?? "")\r\n")
    } else if !keepsAlive {
      buffer.writeStaticString("connection: close\r\n")
    }
  }

  private static func copyFields(
    of message: MessageHead, hidesAuthorization: Bool = false, into buffer: inout ByteBuffer
  ) {
    var named = namedByConnection(message)
    if hidesAuthorization { named.append("authorization") }
    // Two bytes more for each, for a colon without its space.
    buffer.writeHead(bytesMax: message.bytes.readableBytes + 2 * message.fields.count) { head in
      message.bytes.withUnsafeReadableBytes { raw in
        for index in message.fields.indices where !isDropped(message, index, named) {
          let field = message.fields[index]
          let nameEnd = Int(field.nameStart + field.nameLength)
          let valueEnd = Int(field.valueStart + field.valueLength)
          head.add(UnsafeRawBufferPointer(rebasing: raw[Int(field.nameStart)..<nameEnd]))
          head.add(literal: ": ")
          head.add(UnsafeRawBufferPointer(rebasing: raw[Int(field.valueStart)..<valueEnd]))
          head.add(literal: "\r\n")
        }
      }
    }
  }

  /// The lower-case names that Connection declares to be for this connection only.
  private static func namedByConnection(_ message: MessageHead) -> [String] {
    var names: [String] = []
    for index in message.fields.indices where message.nameMatches(index, "connection") {
      for token in message.value(index).split(separator: ",") {
        let name = token.trimmingSpaces().lowercased()
        // Framing and routing must survive whatever a client lists.
        if name != "content-length", name != "host", name != "content-type" { names.append(name) }
      }
    }
    return names
  }

  private static func isDropped(_ message: MessageHead, _ index: Int, _ named: [String]) -> Bool {
    let first = message.bytes.getInteger(at: Int(message.fields[index].nameStart), as: UInt8.self)!
    switch ASCII.lower(first) {
    case UInt8(ascii: "c"): if message.nameMatches(index, "connection") { return true }
    case UInt8(ascii: "k"): if message.nameMatches(index, "keep-alive") { return true }
    case UInt8(ascii: "p"): if message.nameHasPrefix(index, "proxy-") { return true }
    case UInt8(ascii: "t"):
      if message.nameMatches(index, "te") || message.nameMatches(index, "trailer")
        || message.nameMatches(index, "transfer-encoding")
      {
        return true
      }
    case UInt8(ascii: "u"): if message.nameMatches(index, "upgrade") { return true }
    case UInt8(ascii: "e"): if message.nameMatches(index, "expect") { return true }
    case UInt8(ascii: "h"): if message.nameHasPrefix(index, "hearth-") { return true }
    default: break
    }
    return !named.isEmpty && named.contains { message.nameEquals(index, $0) }
  }
}

extension MessageHead {
  fileprivate func nameEquals(_ index: Int, _ lowercased: String) -> Bool {
    let field = fields[index]
    guard Int(field.nameLength) == lowercased.utf8.count else { return false }
    let name = bytes.getString(at: Int(field.nameStart), length: Int(field.nameLength)) ?? ""
    return name.lowercased() == lowercased
  }
}
