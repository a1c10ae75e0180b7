/// Which models stay in the machine's memory when their device needs its own: those that left it last, as many as fit.
public struct HostTier: Sendable {
  /// A model that is kept.
  public struct Kept: Sendable {
    public var bytes: Int64
    /// Whether it is about to go back to a device: it is not thrown out to keep another.
    public var isWanted: Bool

    public init(bytes: Int64, isWanted: Bool = false) {
      self.bytes = bytes
      self.isWanted = isWanted
    }
  }

  /// Bytes that they may take together.
  public let budget: Int64

  public init(budget: Int64) { self.budget = budget }

  /// Which of those that are kept have to go for one more, by their places; nil when it is not to be kept.
  ///
  /// - Parameters:
  ///   - bytes: of the one more.
  ///   - kept: those that are kept, the one first that left its device first.
  ///   - free: bytes of the machine's memory that nobody has a claim to.
  public func victims(for bytes: Int64, among kept: [Kept], free: Int64) -> [Int]? {
    var room = min(budget - kept.reduce(0) { $0 + $1.bytes }, free)
    var victims: [Int] = []
    for (place, model) in kept.enumerated() where room < bytes && !model.isWanted {
      room += model.bytes
      victims.append(place)
    }
    return room >= bytes && bytes > 0 ? victims : nil
  }
}
