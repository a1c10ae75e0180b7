import HearthCore
import NIOCore

/// Cuts the bytes of one message body out of a connection's stream.
public struct BodyDecoder {
  /// What the next bytes of the stream are.
  public enum Part {
    /// Bytes of the body, not copied.
    case data(ByteBuffer)
    /// The body is complete; what follows in the buffer is the next message.
    case end
    /// More bytes have to arrive first.
    case incomplete
  }

  private enum State {
    case length(Int)
    case chunk(ChunkedDecoder)
    case untilClose
    case ended
  }

  private var state: State

  public init(_ framing: BodyFraming) {
    switch framing {
    case .none: state = .ended
    case .length(let count): state = count == 0 ? .ended : .length(count)
    case .chunked: state = .chunk(ChunkedDecoder())
    case .untilClose: state = .untilClose
    }
  }

  public mutating func next(_ buffer: inout ByteBuffer) throws -> Part {
    switch state {
    case .ended:
      return .end
    case .length(let remaining):
      let count = min(remaining, buffer.readableBytes)
      guard count > 0 else { return .incomplete }
      state = remaining == count ? .ended : .length(remaining - count)
      return .data(buffer.readSlice(length: count)!)
    case .chunk(var decoder):
      let part = try decoder.next(&buffer)
      if case .end = part { state = .ended } else { state = .chunk(decoder) }
      return part
    case .untilClose:
      guard buffer.readableBytes > 0 else { return .incomplete }
      return .data(buffer.readSlice(length: buffer.readableBytes)!)
    }
  }

  /// Whether the body is whole when its connection ends now.
  public var isCompleteAtClose: Bool {
    switch state {
    case .untilClose, .ended: true
    case .length, .chunk: false
    }
  }
}

/// The chunked transfer coding (RFC 9112, section 7.1), strict: CRLF line ends, sizes of at most 15 hexadecimal
/// digits, bounded extensions, and trailers that are checked, bounded and dropped.
struct ChunkedDecoder {
  /// 256 bytes: a size line is a handful of digits; extensions have no use here.
  static let sizeLineMax = 256
  /// 8 KiB: as much as a head's usual fields.
  static let trailersMax = 8 * 1024

  /// Fields that a trailer must not have (RFC 9110, section 6.5.1).
  private static let framingNames: Set<String> = [
    "transfer-encoding", "content-length", "connection", "keep-alive", "proxy-connection", "upgrade",
  ]

  private enum State {
    case size
    case data(Int)
    case dataEnd
    case trailers(used: Int)
  }

  private var state = State.size

  mutating func next(_ buffer: inout ByteBuffer) throws -> BodyDecoder.Part {
    while true {
      switch state {
      case .size:
        guard let line = try readLine(&buffer, lengthMax: ChunkedDecoder.sizeLineMax) else { return .incomplete }
        let size = try ChunkedDecoder.size(of: line)
        state = size == 0 ? .trailers(used: 0) : .data(size)
      case .data(let remaining):
        let count = min(remaining, buffer.readableBytes)
        guard count > 0 else { return .incomplete }
        state = remaining == count ? .dataEnd : .data(remaining - count)
        return .data(buffer.readSlice(length: count)!)
      case .dataEnd:
        guard buffer.readableBytes >= 2 else { return .incomplete }
        guard buffer.readInteger(as: UInt16.self) == 0x0D0A else { throw malformed("a chunk is not ended by CRLF") }
        state = .size
      case .trailers(let used):
        guard let line = try readLine(&buffer, lengthMax: ChunkedDecoder.trailersMax - used) else { return .incomplete }
        if line.readableBytes == 0 { return .end }
        let name = line.readableBytesView.prefix(while: ASCII.isToken)
        guard !name.isEmpty, line.readableBytesView.dropFirst(name.count).first == ASCII.colon else {
          throw malformed("a trailer field has no valid name")
        }
        guard !ChunkedDecoder.framingNames.contains(String(decoding: name, as: UTF8.self).lowercased()) else {
          throw malformed("a trailer field says how to read the message or what becomes of its connection")
        }
        state = .trailers(used: used + line.readableBytes + 2)
      }
    }
  }

  private func readLine(_ buffer: inout ByteBuffer, lengthMax: Int) throws -> ByteBuffer? {
    let view = buffer.readableBytesView
    guard let end = view.firstIndex(of: ASCII.lineFeed) else {
      guard view.count <= lengthMax else { throw malformed("a chunk's size line or the trailers are too long") }
      return nil
    }
    let length = end - view.startIndex
    guard length <= lengthMax else { throw malformed("a chunk's size line or the trailers are too long") }
    guard length > 0, view[end - 1] == ASCII.carriageReturn else { throw malformed("a line feed stands alone") }
    let line = buffer.readSlice(length: length - 1)!
    buffer.moveReaderIndex(forwardBy: 2)
    guard line.readableBytesView.allSatisfy(ASCII.isFieldValue) else {
      throw malformed("a control character stands in a chunk's size line or trailer")
    }
    return line
  }

  private static func size(of line: ByteBuffer) throws -> Int {
    let view = line.readableBytesView
    let digits = view.prefix { byte in
      (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }
    guard (1...15).contains(digits.count), let size = Int(String(decoding: digits, as: UTF8.self), radix: 16) else {
      throw malformed("a chunk's size is not a hexadecimal number")
    }
    try checkExtensions(view.dropFirst(digits.count))
    return size
  }

  /// Extensions mean nothing here, but must be what the standard says: `;name`, `;name=token` or `;name="text"`.
  private static func checkExtensions(_ extensions: ByteBufferView) throws {
    var rest = extensions
    while let first = rest.first {
      let name = rest.dropFirst().prefix(while: ASCII.isToken)
      guard first == UInt8(ascii: ";"), !name.isEmpty else { throw malformed("a chunk's extension is not valid") }
      rest = rest.dropFirst(1 + name.count)
      guard rest.first == UInt8(ascii: "=") else { continue }
      rest = rest.dropFirst()
      if rest.first == UInt8(ascii: "\"") {
        let text = rest.dropFirst().prefix { $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        rest = rest.dropFirst(1 + text.count)
        guard rest.first == UInt8(ascii: "\"") else { throw malformed("a chunk's extension has no end") }
        rest = rest.dropFirst()
      } else {
        let token = rest.prefix(while: ASCII.isToken)
        guard !token.isEmpty else { throw malformed("a chunk's extension has no value") }
        rest = rest.dropFirst(token.count)
      }
    }
  }
}
