/// Times and lengths of time as logs and traces write them.
public enum TimeText {
  /// Nanoseconds since 1970 as RFC 3339, in UTC, to the millisecond.
  public static func rfc3339(unixNanoseconds nanoseconds: Int64) -> String {
    let seconds = CivilDate.floorDivide(nanoseconds, 1_000_000_000)
    let day = CivilDate.floorDivide(seconds, 86_400)
    let date = CivilDate(daysSinceEpoch: day)
    let rest = seconds - day * 86_400
    let milliseconds = (nanoseconds - seconds * 1_000_000_000) / 1_000_000
    return "\(date.year)-\(padded(date.month, 2))-\(padded(date.day, 2))T\(padded(rest / 3_600, 2)):"
      + "\(padded(rest / 60 % 60, 2)):\(padded(rest % 60, 2)).\(padded(milliseconds, 3))Z"
  }

  /// Nanoseconds as seconds with six decimals; what is negative as zero.
  public static func seconds(nanoseconds: Int64) -> String {
    let micros = max(0, nanoseconds) / 1_000
    return "\(micros / 1_000_000).\(padded(micros % 1_000_000, 6))"
  }

  private static func padded(_ number: Int64, _ digits: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}
