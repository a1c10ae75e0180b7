import NIOCore

extension ByteBuffer {
  /// 64 KiB: what was consumed is given back by then. A connection whose reads always end within a message would
  /// otherwise keep all that it ever received.
  private static let consumedBytesMax = 64 * 1024

  public mutating func discardReadBytesIfLarge() {
    if readerIndex > ByteBuffer.consumedBytesMax { discardReadBytes() }
  }
}
