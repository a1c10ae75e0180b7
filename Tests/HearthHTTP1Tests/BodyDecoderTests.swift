import HearthCore
import HearthHTTP1
import NIOCore
import Testing

/// Decodes a body that arrives in pieces of a size. Returns what it holds and what is left of the stream.
private func decode(_ framing: BodyFraming, _ text: String, step: Int) throws -> (body: String, rest: String)? {
  var decoder = BodyDecoder(framing)
  var buffer = ByteBuffer()
  var body = ""
  var bytes = Array(text.utf8)[...]
  while true {
    switch try decoder.next(&buffer) {
    case .data(let part): body += String(buffer: part)
    case .end: return (body, String(buffer: buffer) + String(decoding: bytes, as: UTF8.self))
    case .incomplete:
      if bytes.isEmpty { return nil }
      buffer.writeBytes(bytes.prefix(step))
      bytes = bytes.dropFirst(step)
    }
  }
}

@Suite("Reading bodies")
struct BodyDecoderTests {
  @Test("A body of known length, however it arrives", arguments: [1, 2, 3, 100])
  func length(step: Int) throws {
    let result = try #require(try decode(.length(5), "helloNEXT", step: step))
    #expect(result.body == "hello")
    #expect(result.rest == "NEXT")
  }

  @Test("Chunks, extensions and trailers, however they arrive", arguments: [1, 2, 3, 7, 100])
  func chunked(step: Int) throws {
    let text = "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nNEXT"
    let result = try #require(try decode(.chunked, text, step: step))
    #expect(result.body == "hello world")
    #expect(result.rest == "NEXT")
  }

  @Test("A body cut short is not whole", arguments: ["5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", ""])
  func cut(text: String) throws {
    #expect(try decode(.chunked, text, step: 3) == nil)
  }

  @Test("A response head from a worker")
  func response() throws {
    var parser = ResponseParser(bytesMax: 4096)
    var buffer = ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n")
    let head = try #require(try parser.parse(&buffer, requestMethod: "POST"))
    #expect(head.status == 201)
    #expect(head.framing == .none)
  }
}
