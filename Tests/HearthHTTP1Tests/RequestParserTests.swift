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

  /// Each line of the corpus is a request that is refused with 400, whatever the rest of the system would make of it.
  static let refused: [(name: String, text: String)] = [
    ("length and chunks", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("repeated length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
    ("listed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\n"),
    ("signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\n"),
    ("negative length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\n"),
    ("hexadecimal length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\n"),
    ("empty length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n"),
    ("huge length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n"),
    (
      "repeated coding",
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("folded field", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
    ("space before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: h\r\nnothing\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n"),
    ("name with a slash", "GET / HTTP/1.1\r\nHost: h\r\na/b: x\r\n\r\n"),
    ("name beyond ASCII", "GET / HTTP/1.1\r\nHost: h\r\nä: x\r\n\r\n"),
    ("bare line feed", "GET / HTTP/1.1\nHost: h\r\n\r\n\r\n"),
    ("bare line feed in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\nb\r\n\r\n"),
    ("bare carriage return in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\u{0}b\r\n\r\n"),
    ("delete in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\u{7F}b\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: h\r\nX\u{0}: a\r\n\r\n"),
    ("missing host", "GET / HTTP/1.1\r\nX: a\r\n\r\n"),
    ("repeated host", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    ("two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("host with credentials", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    ("absolute form", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("authority form", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no target", "GET  HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("tab as a space", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("fragment in the target", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("target beyond ASCII", "GET /ä HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method with a colon", "GE:T / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no method", " / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("long method", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLM / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no version", "GET /\r\nHost: h\r\n\r\n"),
    ("lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n"),
    ("version 2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    ("version 1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    ("trailing space after the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    ("unknown expectation", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n"),
  ]

  @Test("What has more than one meaning is refused", arguments: refused)
  func refuses(name: String, text: String) {
    #expect(throws: HearthError.self, "\(name)") { try parse(text) }
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
    HeadWriter.write(head, target: "/", extra: "hearth-request-id: r-1\r\n", into: &buffer)
    #expect(
      String(buffer: buffer)
        == "POST / HTTP/1.1\r\nHost: h\r\nX-Two: 2\r\nContent-Length: 2\r\nhearth-request-id: r-1\r\n\r\n")
  }

  @Test("Connection cannot make Content-Length vanish")
  func framingSurvives() throws {
    let head = try #require(
      try parse("POST / HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\n"))
    var buffer = ByteBuffer()
    HeadWriter.write(head, target: "/", extra: "", into: &buffer)
    #expect(String(buffer: buffer).contains("Content-Length: 2"))
  }
}
