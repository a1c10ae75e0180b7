/// A point in time on the gateway's monotonic clock, in nanoseconds since an arbitrary origin.
public struct HearthInstant: InstantProtocol, Sendable {
  public let nanoseconds: Int64

  public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  public func advanced(by duration: Duration) -> HearthInstant {
    HearthInstant(nanoseconds: nanoseconds &+ duration.nanoseconds)
  }

  public func duration(to other: HearthInstant) -> Duration {
    .nanoseconds(other.nanoseconds &- nanoseconds)
  }

  public static func < (left: HearthInstant, right: HearthInstant) -> Bool { left.nanoseconds < right.nanoseconds }
}

/// A clock whose instants are `HearthInstant`: the real one is made once, at the composition root.
public protocol HearthClock: Clock where Instant == HearthInstant {
  /// Unix time less `now`: what the wall clock shows. It changes when the wall clock is set.
  var wallOffset: Duration { get }
}

extension Duration {
  /// The duration in whole nanoseconds, saturating at ±292 years.
  public var nanoseconds: Int64 {
    // Below nine seconds, which most are, without 128-bit division.
    if let short = Int64(exactly: attoseconds) { return short / 1_000_000_000 }
    let (seconds, attoseconds) = components
    let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    if overflow { return seconds < 0 ? .min : .max }
    let (sum, carried) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
    return carried ? (seconds < 0 ? .min : .max) : sum
  }

  /// The duration in milliseconds, as shown in headers and tables.
  public var milliseconds: Double { Double(nanoseconds) / 1e6 }

  /// The duration in seconds.
  public var seconds: Double { Double(nanoseconds) / 1e9 }
}
