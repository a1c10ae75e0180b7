/// A recurring time at which workers are kept whether or not requests come: from each match of `cron`, for `duration`.
public struct WarmWindow: Hashable, Sendable, CustomStringConvertible {
  /// 7 days: a longer one is `min-workers`.
  public static let durationMax = Duration.seconds(7 * 86_400)

  public let cron: CronExpression
  public let duration: Duration
  public let workers: Int

  /// Nil when the duration or the number of workers is out of range.
  public init?(cron: CronExpression, duration: Duration, workers: Int) {
    guard duration >= .seconds(60), duration <= WarmWindow.durationMax, (1...10_000).contains(workers) else {
      return nil
    }
    self.cron = cron
    self.duration = duration
    self.workers = workers
  }

  /// Reads `0 8 * * mon-fri for 10h workers 2`. Nil when the text is not one.
  public init?(_ text: Substring) {
    let words = text.split(separator: " ").map(String.init)
    guard words.count == 9, words[5] == "for", words[7] == "workers",
      let cron = CronExpression(words[..<5].joined(separator: " ")), let duration = Duration(hearth: words[6]),
      let workers = Int(words[8])
    else { return nil }
    self.init(cron: cron, duration: duration, workers: workers)
  }

  public var description: String { "\(cron) for \(duration.text) workers \(workers)" }

  /// Whether it is open at this time, and when that may change next (nil: never again).
  ///
  /// - Parameter time: seconds since 1970-01-01T00:00:00Z.
  public func state(at time: Int64) -> (isOpen: Bool, until: Int64?) {
    let length = duration.nanoseconds / 1_000_000_000
    // Open if it began within the last `length` seconds.
    let began = cron.next(after: time - length)
    guard let began, began <= time else { return (false, began) }
    return (true, began + length)
  }
}
