import NIOCore
import Testing

@testable import HearthHTTP1

@Suite struct ASCIITests {
  @Test("The classes of characters are those of RFC 9110, section 5.6, and of request targets")
  func classes() {
    let alphanumerics = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".utf8)
    let token = Set(alphanumerics + Array("!#$%&'*+-.^_`|~".utf8))
    for byte in UInt8.min...UInt8.max {
      #expect(ASCII.isToken(byte) == token.contains(byte), "\(byte)")
      #expect(ASCII.isFieldValue(byte) == (byte == 0x09 || (byte >= 0x20 && byte != 0x7F)), "\(byte)")
      let isTarget = byte > 0x20 && byte < 0x7F && !"\"<>\\^`{|}#".utf8.contains(byte)
      #expect(ASCII.isTarget(byte) == isTarget, "\(byte)")
    }
  }

  @Test("Eight bytes are searched for control characters at once, whatever stands beside them")
  func controls() {
    for byte in UInt8.min...UInt8.max {
      for place in 0..<8 {
        for filler: UInt8 in [0x20, 0x41, 0x7E, 0x80, 0xFF] {
          var bytes = [UInt8](repeating: filler, count: 8)
          bytes[place] = byte
          let word = bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
          #expect(ASCII.holdsControl(word) == (byte < 0x20 || byte == 0x7F), "\(byte) at \(place) in \(filler)")
        }
      }
    }
  }

  @Test(
    "Numbers in heads are decimal digits",
    arguments: [0, 1, 9, 10, 99, 100, 12_345, 999_999_999, Int(Int64.max / 1_000)])
  func numbers(number: Int) {
    var buffer = ByteBuffer()
    buffer.writeHead(bytesMax: 80) { head in
      head.add(number: number)
      head.add(ASCII.space)
      head.add(milliseconds: Int64(number) * 1_000)
    }
    let rest = String(number % 1_000)
    let milliseconds = "\(number / 1_000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
    #expect(String(buffer: buffer) == "\(number) \(milliseconds)")
  }
}
