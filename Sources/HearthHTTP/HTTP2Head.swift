import HearthCore
import HearthHTTP1
import NIOCore
import NIOHPACK

/// Heads between HTTP/2's fields and HTTP/1.1's text (RFC 9113, section 8).
enum HTTP2Head {
  /// The request that the fields stand for. Throws `request_malformed` when they stand for none.
  ///
  /// swift-nio-http2 has checked pseudo-fields and connection fields; names and values are checked here, so that none
  /// can end a line, and then once more by the parser.
  static func request(_ headers: HPACKHeaders, endStream: Bool, bytesMax: Int) throws -> RequestHead {
    guard let method = headers.first(name: ":method"), let path = headers.first(name: ":path") else {
      throw HearthError(.requestMalformed, "The request has no :method or no :path.")
    }
    var text = "\(try line(method)) \(try line(path)) HTTP/1.1\r\n"
    if let authority = headers.first(name: ":authority") {
      text += "host: \(try line(authority))\r\n"
      if let host = headers.first(name: "host"), host.lowercased() != authority.lowercased() {
        throw HearthError(.requestMalformed, "The request's host differs from its :authority.")
      }
    } else {
      text += "host: \(try line(headers.first(name: "host") ?? ""))\r\n"
    }
    for (name, value, _) in headers where !name.hasPrefix(":") && name != "host" && name != "cookie" {
      text += "\(try line(name)): \(try line(value))\r\n"
    }
    // Cookies may come in pieces (RFC 9113, section 8.2.3).
    let cookies = headers[canonicalForm: "cookie"].joined(separator: "; ")
    if !cookies.isEmpty { text += "cookie: \(try line(cookies))\r\n" }
    if !endStream, !headers.contains(name: "content-length") { text += "transfer-encoding: chunked\r\n" }
    var buffer = ByteBuffer(string: text + "\r\n")
    var parser = RequestParser(bytesMax: bytesMax)
    guard let request = try parser.parse(&buffer), buffer.readableBytes == 0 else {
      throw HearthError(.requestMalformed, "The request's fields are not valid.")
    }
    return request
  }

  private static func line(_ text: String) throws -> String {
    guard text.utf8.allSatisfy({ $0 >= 0x20 || $0 == 0x09 }) else {
      throw HearthError(.requestMalformed, "A control character stands in the request's fields.")
    }
    return text
  }

  /// The fields of a response head written as HTTP/1.1.
  static func response(_ head: ByteBuffer) -> HPACKHeaders {
    let lines = String(buffer: head).split(separator: "\r\n", omittingEmptySubsequences: true)
    var headers = HPACKHeaders()
    headers.add(name: ":status", value: String(lines[0].dropFirst("HTTP/1.1 ".count).prefix(3)))
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let value = line[line.index(after: colon)...].drop { $0 == " " }
      headers.add(name: line[..<colon].lowercased(), value: String(value))
    }
    return headers
  }
}
