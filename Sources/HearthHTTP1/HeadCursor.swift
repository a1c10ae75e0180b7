import NIOCore

/// Writes a head piece by piece into memory that was made ready once. A buffer would see to its memory for every piece.
struct HeadCursor {
  private let memory: UnsafeMutableRawBufferPointer
  fileprivate private(set) var count = 0

  fileprivate init(_ memory: UnsafeMutableRawBufferPointer) { self.memory = memory }

  mutating func add(_ byte: UInt8) {
    memory[count] = byte
    count += 1
  }

  mutating func add(literal text: StaticString) {
    add(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  mutating func add(_ text: String) {
    var text = text
    text.withUTF8 { add(UnsafeRawBufferPointer($0)) }
  }

  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    precondition(count + bytes.count <= memory.count, "the pieces of a head fit what was made ready for them")
    UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: bytes)
    count += bytes.count
  }

  /// A number of nanoseconds as milliseconds with three decimals.
  mutating func add(milliseconds nanoseconds: Int64) {
    let microseconds = Int(max(0, nanoseconds)) / 1_000
    add(number: microseconds / 1_000)
    add(UInt8(ascii: "."))
    let rest = microseconds % 1_000
    add(UInt8(ascii: "0") + UInt8(rest / 100))
    add(UInt8(ascii: "0") + UInt8(rest / 10 % 10))
    add(UInt8(ascii: "0") + UInt8(rest % 10))
  }

  /// A number that is not negative, in decimal digits.
  mutating func add(number: Int) {
    var divisor = 1
    while number / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      add(UInt8(ascii: "0") + UInt8(number / divisor % 10))
      divisor /= 10
    }
  }
}

extension ByteBuffer {
  /// Writes pieces that take at most `bytesMax` bytes together.
  mutating func writeHead(bytesMax: Int, _ pieces: (inout HeadCursor) -> Void) {
    writeWithUnsafeMutableBytes(minimumWritableBytes: bytesMax) { memory in
      var cursor = HeadCursor(memory)
      pieces(&cursor)
      return cursor.count
    }
  }
}
