import HearthCore

/// Times as traces write them.
enum TraceTime {
  /// Reads seconds since 1970, or `YYYY-MM-DD HH:MM:SS.fff` with a blank or `T` and an optional `Z`. Nil for others.
  static func parse(_ text: String) -> Duration? {
    if let seconds = Double(text) { return seconds >= 0 && seconds < 1e11 ? .seconds(seconds) : nil }
    let parts = text.split(omittingEmptySubsequences: false) { $0 == " " || $0 == "T" }
    guard parts.count == 2 else { return nil }
    let date = parts[0].split(separator: "-").compactMap { Int64($0) }
    let clock = parts[1].drop(while: { $0 == " " }).split(separator: ":").map(String.init)
    guard date.count == 3, (1...9_999).contains(date[0]), (1...12).contains(date[1]), (1...31).contains(date[2]),
      clock.count == 3,
      let hour = Int64(clock[0]), let minute = Int64(clock[1]),
      let second = Double(clock[2].hasSuffix("Z") ? String(clock[2].dropLast()) : clock[2]),
      (0...23).contains(hour), (0...59).contains(minute), second >= 0, second < 61
    else { return nil }
    let day = CivilDate.daysSinceEpoch(year: date[0], month: date[1], day: date[2])
    return .seconds(day * 86_400 + hour * 3_600 + minute * 60) + .seconds(second)
  }
}
