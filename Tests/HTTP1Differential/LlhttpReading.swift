import NIOCore
import NIOEmbedded
import NIOHTTP1

extension HTTP1Reading {
  /// Reads a stream with llhttp, in the strict mode that SwiftNIO uses it in.
  public init(llhttp bytes: [UInt8], _ side: HTTP1Side) {
    let channel = EmbeddedChannel()
    do {
      switch side {
      case .request: try channel.pipeline.syncOperations.addHandler(ByteToMessageHandler(HTTPRequestDecoder()))
      case .response: try channel.pipeline.syncOperations.addHandler(ByteToMessageHandler(HTTPResponseDecoder()))
      }
      if side == .response {
        // The decoder takes one response for each request it has seen; none is shorter than 16 bytes.
        for _ in 0...bytes.count / 16 {
          try channel.writeOutbound(HTTPClientRequestPart.head(.init(version: .http1_1, method: .GET, uri: "/")))
        }
      }
      try channel.writeInbound(ByteBuffer(bytes: bytes))
    } catch {
      isRefused = true
    }
    collect(channel, side)
    // An end within a message is an error to the decoder; a response without a length ends here.
    if (try? channel.finish(acceptAlreadyClosed: true)) != nil { collect(channel, side) }
  }

  private mutating func collect(_ channel: EmbeddedChannel, _ side: HTTP1Side) {
    switch side {
    case .request: while let part = try? channel.readInbound(as: HTTPServerRequestPart.self) { take(part) }
    case .response: while let part = try? channel.readInbound(as: HTTPClientResponsePart.self) { take(part) }
    }
  }

  private mutating func take(_ part: HTTPServerRequestPart) {
    switch part {
    case .head(let head): begin("\(head.method.rawValue) \(head.uri)", head.headers)
    case .body(let bytes): open?.body += Array(bytes.readableBytesView)
    case .end: finish()
    }
  }

  private mutating func take(_ part: HTTPClientResponsePart) {
    switch part {
    case .head(let head): begin(String(head.status.code), head.headers)
    case .body(let bytes): open?.body += Array(bytes.readableBytesView)
    case .end: finish()
    }
  }

  private mutating func begin(_ start: String, _ headers: HTTPHeaders) {
    // llhttp leaves tabs behind a value, which are white space (RFC 9110, section 5.5).
    let fields = headers.map { field in
      let value = field.value.utf8.reversed().drop { $0 == 0x09 || $0 == 0x20 }.reversed()
      return "\(field.name.lowercased()): \(String(decoding: value, as: UTF8.self))"
    }
    open = HTTP1Message(start: start, fields: fields, body: [])
  }

  private mutating func finish() {
    if let open { messages.append(open) }
    open = nil
  }
}
