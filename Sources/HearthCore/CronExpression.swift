/// When something recurs, in the five fields of cron (crontab(5)): minute, hour, day of month, month, day of week.
///
/// Fields take `*`, numbers, ranges, lists, steps (`*/15`, `8-18/2`) and English names (`mon`, `jan`). As in cron, a
/// day matches if either of two restricted day fields does. Times are UTC.
public struct CronExpression: Hashable, Sendable, CustomStringConvertible {
  private static let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
  private static let weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
  /// 8 years: 29 February is within them also around a century without one.
  private static let horizon = 8 * 366

  public let description: String
  private let minutes: UInt64
  private let hours: UInt64
  private let days: UInt64
  private let monthsOfYear: UInt64
  private let daysOfWeek: UInt64
  /// Whether both day fields are restricted, so that either suffices.
  private let matchesEitherDay: Bool

  /// Nil when the text is not five valid fields, or never matches.
  public init?(_ text: String) {
    let fields = text.split(separator: " ").map { $0.lowercased() }
    guard fields.count == 5,
      let minutes = CronExpression.mask(fields[0], 0...59, []),
      let hours = CronExpression.mask(fields[1], 0...23, []),
      let days = CronExpression.mask(fields[2], 1...31, []),
      let months = CronExpression.mask(fields[3], 1...12, CronExpression.months),
      let weekdays = CronExpression.mask(fields[4], 0...7, CronExpression.weekdays)
    else { return nil }
    self.minutes = minutes
    self.hours = hours
    self.days = days
    monthsOfYear = months
    // Sunday is 0 and 7.
    daysOfWeek = weekdays & (1 << 7) != 0 ? weekdays | 1 : weekdays
    matchesEitherDay = !fields[2].hasPrefix("*") && !fields[4].hasPrefix("*")
    description = fields.joined(separator: " ")
    guard next(after: 0) != nil else { return nil }
  }

  /// The first match after a time, both in seconds since 1970-01-01T00:00:00Z; nil when there is none for years.
  public func next(after time: Int64) -> Int64? {
    var minute = CivilDate.floorDivide(time, 60) + 1
    var day = CivilDate.floorDivide(minute, 1_440)
    minute -= day * 1_440
    for _ in 0...CronExpression.horizon {
      if matches(day: day) {
        for candidate in Int(minute)..<1_440
        where hours & (1 << UInt64(candidate / 60)) != 0 && minutes & (1 << UInt64(candidate % 60)) != 0 {
          return (day * 1_440 + Int64(candidate)) * 60
        }
      }
      day += 1
      minute = 0
    }
    return nil
  }

  private func matches(day: Int64) -> Bool {
    let date = CivilDate(daysSinceEpoch: day)
    guard monthsOfYear & (1 << UInt64(date.month)) != 0 else { return false }
    let matchesDay = days & (1 << UInt64(date.day)) != 0
    let matchesWeekday = daysOfWeek & (1 << UInt64(date.weekday)) != 0
    return matchesEitherDay ? matchesDay || matchesWeekday : matchesDay && matchesWeekday
  }

  /// The numbers a field allows, as bits.
  private static func mask(_ field: String, _ range: ClosedRange<Int>, _ names: [String]) -> UInt64? {
    var mask: UInt64 = 0
    for part in field.split(separator: ",", omittingEmptySubsequences: false) {
      let stepped = part.split(separator: "/", omittingEmptySubsequences: false)
      guard stepped.count <= 2, let step = stepped.count == 2 ? Int(stepped[1]) : 1, step > 0 else { return nil }
      let bounds = stepped[0].split(separator: "-", omittingEmptySubsequences: false)
      let low: Int
      let high: Int
      if stepped[0] == "*" {
        (low, high) = (range.lowerBound, range.upperBound)
      } else {
        guard bounds.count <= 2, let first = number(bounds[0], range, names) else { return nil }
        let last = bounds.count == 2 ? number(bounds[1], range, names) : stepped.count == 2 ? range.upperBound : first
        guard let last, last >= first else { return nil }
        (low, high) = (first, last)
      }
      for value in stride(from: low, through: high, by: step) { mask |= 1 << UInt64(value) }
    }
    return mask == 0 ? nil : mask
  }

  private static func number(_ text: Substring, _ range: ClosedRange<Int>, _ names: [String]) -> Int? {
    if let index = names.firstIndex(of: String(text)) { return index + range.lowerBound }
    guard text.allSatisfy({ $0.isASCII && $0.isNumber }), let value = Int(text), range.contains(value) else {
      return nil
    }
    return value
  }
}
