import HearthCore
import HearthHTTP1
import NIOCore
import Testing

private func parse(_ text: String, bytesMax: Int = 4096) throws -> RequestHead? {
  var parser = RequestParser(bytesMax: bytesMax)
  var buffer = ByteBuffer(string: text)
  return try parser.parse(&buffer)
}

@Suite("Reading requests")
struct RequestParserTests {
  @Test("A plain request")
  func plain() throws {
    let head = try #require(
      try parse("POST /functions/a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A:  b \r\n\r\n"))
    #expect(head.method == "POST")
    #expect(head.target == "/functions/a?x=1")
    #expect(head.framing == .length(3))
    #expect(head.keepsAlive)
    #expect(head.message.first("x-a") == "b")
  }

  @Test(
    "Unknown transfer codings are refused with 501",
    arguments: ["gzip", "gzip, chunked", "identity", "chunked, chunked", "xchunked"])
  func codings(coding: String) {
    let error = #expect(throws: HearthError.self) {
      try parse("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \(coding)\r\n\r\n")
    }
    #expect(error?.code == .notImplemented)
  }

  @Test("An unknown method is refused with 501", arguments: ["BREW", "CONNECT", "TRACE", "get"])
  func methods(method: String) {
    let error = #expect(throws: HearthError.self) { try parse("\(method) / HTTP/1.1\r\nHost: h\r\n\r\n") }
    #expect(error?.code == .notImplemented)
  }

  @Test("A target in absolute form is reduced to its path when it names the same host as Host")
  func absoluteForm() throws {
    #expect(try parse("GET http://h:80/a?b HTTP/1.1\r\nHost: H:80\r\n\r\n")?.target == "/a?b")
    #expect(try parse("GET http://h?b HTTP/1.1\r\nHost: h\r\n\r\n")?.target == "/?b")
    #expect(throws: HearthError.self) { try parse("GET http://g/a HTTP/1.1\r\nHost: h\r\n\r\n") }
  }

  @Test("A head larger than the limit is refused with 431, arriving whole or in drops")
  func tooLarge() throws {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nX: \(String(repeating: "a", count: 600))\r\n\r\n"
    #expect(throws: HearthError.self) { try parse(text, bytesMax: 512) }
    var parser = RequestParser(bytesMax: 512)
    var buffer = ByteBuffer()
    let error = #expect(throws: HearthError.self) {
      for byte in text.utf8 {
        buffer.writeInteger(byte)
        _ = try parser.parse(&buffer)
      }
    }
    #expect(error?.code == .headTooLarge)
  }

  @Test("Byte by byte gives the same request as all at once")
  func drops() throws {
    let text = "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nA: 1\r\nB: 2\r\n\r\n"
    var parser = RequestParser(bytesMax: 4096)
    var buffer = ByteBuffer()
    var found: RequestHead?
    for (index, byte) in text.utf8.enumerated() {
      buffer.writeInteger(byte)
      found = try parser.parse(&buffer)
      #expect((found != nil) == (index == text.utf8.count - 1))
    }
    #expect(found?.framing == .chunked)
    #expect(found?.message.first("b") == "2")
  }

  @Test("Connection options decide whether the connection stays")
  func persistence() throws {
    #expect(try parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n")?.keepsAlive == false)
    #expect(try parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: a, close\r\n\r\n")?.keepsAlive == false)
    #expect(try parse("GET / HTTP/1.0\r\n\r\n")?.keepsAlive == false)
    #expect(try parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?.keepsAlive == true)
  }

  @Test("The worker gets a canonical head without hop-by-hop fields, and a client cannot set Hearth's own")
  func canonical() throws {
    let head = try #require(
      try parse(
        "POST /functions/a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x-one\r\nX-One: 1\r\nTE: trailers\r\n"
          + "Upgrade: tea\r\nProxy-Authorization: p\r\nKeep-Alive: 5\r\nHearth-Request-Id: forged\r\nX-Two: 2\r\n"
          + "Content-Length: 2\r\n\r\n"))
    var buffer = ByteBuffer()
    HeadWriter.write(head, target: "/", framing: head.framing, RequestStamp(requestID: "r-1"), into: &buffer)
    #expect(
      String(buffer: buffer)
        == "POST / HTTP/1.1\r\nHost: h\r\nX-Two: 2\r\nContent-Length: 2\r\nhearth-request-id: r-1\r\n\r\n")
  }

  @Test("Connection cannot make Content-Length vanish")
  func framingSurvives() throws {
    let head = try #require(
      try parse("POST / HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\n"))
    var buffer = ByteBuffer()
    HeadWriter.write(head, target: "/", framing: head.framing, RequestStamp(requestID: "r-1"), into: &buffer)
    #expect(String(buffer: buffer).contains("Content-Length: 2"))
  }
}
