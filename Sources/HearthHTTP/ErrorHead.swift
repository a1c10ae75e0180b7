import HearthCore
import HearthHTTP1
import NIOCore

extension HearthError {
  /// Writes the head of the response that carries this error, without what belongs to a connection and without the
  /// empty line.
  func writeHead(
    request: String, clientRequest: String? = nil, _ stamp: ResponseStamp?, into buffer: inout ByteBuffer
  ) {
    buffer.writeString(
      "HTTP/1.1 \(code.status) \(HTTPStatus.reason(code.status))\r\ncontent-type: application/json\r\n")
    if let stamp { stamp.write(into: &buffer) } else { buffer.writeString("hearth-request-id: \(request)\r\n") }
    if let clientRequest { buffer.writeString("x-request-id: \(clientRequest)\r\n") }
    if code.status == 401 { buffer.writeStaticString("www-authenticate: Bearer\r\n") }
    if let retryAfter { buffer.writeString("retry-after: \(max(1, Int(retryAfter.seconds.rounded(.up))))\r\n") }
  }
}
