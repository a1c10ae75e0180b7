/// The numbers that a schedule calls its workers by: a block, and one more that the shell adds before the first ends.
public struct WorkerNumbers: Hashable, Sendable {
  /// 100,000: more workers than one fact can start ten times over.
  public static let blockSize: UInt64 = 100_000

  private var next: UInt64
  private var end: UInt64
  private var reserve: UInt64?

  /// - Parameters:
  ///   - first: the block's first number.
  ///   - count: how many numbers it has.
  public init(first: UInt64, count: UInt64 = WorkerNumbers.blockSize) {
    next = first
    end = first + count
  }

  /// Whether another block should be added.
  public var runOut: Bool { reserve == nil && end - next < WorkerNumbers.blockSize / 2 }

  /// Adds a block of `blockSize` numbers.
  public mutating func add(first: UInt64) { reserve = first }

  mutating func take() -> UInt64 {
    if next == end, let reserve {
      next = reserve
      end = reserve + WorkerNumbers.blockSize
      self.reserve = nil
    }
    precondition(next < end, "the shell adds numbers before they run out")
    defer { next += 1 }
    return next
  }
}
