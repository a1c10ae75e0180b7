import HearthCore

/// A replay over time, in parts of equal length.
public struct Timeline: Sendable {
  public struct Part: Sendable {
    public var requests = 0
    public var coldStarts = 0
    /// Time of workers within the part: divided by its length, how many there were on average.
    var workerSeconds = 0.0
  }

  public let partLength: Duration
  public private(set) var parts: [Part]

  init(length: Duration, parts: Int) {
    self.parts = Array(repeating: Part(), count: parts)
    partLength = max(length / parts, .milliseconds(1))
  }

  /// How many workers there were on average in a part.
  public func workers(in part: Int) -> Double { parts[part].workerSeconds / partLength.seconds }

  mutating func addRequest(at instant: HearthInstant) { parts[index(instant)].requests += 1 }
  mutating func addColdStart(at instant: HearthInstant) { parts[index(instant)].coldStarts += 1 }

  /// A worker was there from one instant to another.
  mutating func book(from start: HearthInstant, to end: HearthInstant) {
    var start = start
    for part in index(start)...index(end) {
      let partEnd = HearthInstant(nanoseconds: Int64(part + 1) * partLength.nanoseconds)
      let until = part == parts.count - 1 ? end : min(end, partEnd)
      if until > start { parts[part].workerSeconds += start.duration(to: until).seconds }
      start = max(start, until)
    }
  }

  private func index(_ instant: HearthInstant) -> Int {
    min(parts.count - 1, Int(instant.nanoseconds / partLength.nanoseconds))
  }
}
