import HearthCore

/// During which parts of a rest a worker is kept, counted from the rest's beginning.
public struct IdlePlan: Hashable, Sendable {
  public struct Span: Hashable, Sendable {
    public var from: Duration
    /// Nil: until the next request.
    public var until: Duration?
  }

  /// In order, without overlaps.
  public var spans: [Span]

  /// Rounds to nanoseconds, as instants are: an end between two of them would never be reached.
  public init(spans: [Span]) {
    self.spans = spans.map {
      Span(from: .nanoseconds($0.from.nanoseconds), until: $0.until.map { .nanoseconds($0.nanoseconds) })
    }
  }

  static func until(_ end: Duration) -> IdlePlan { IdlePlan(spans: [Span(from: .zero, until: end)]) }

  func keeps(at rest: Duration) -> Bool {
    spans.contains { $0.from <= rest && ($0.until.map { rest < $0 } ?? true) }
  }

  /// The first instant after `rest` at which a worker that is kept now, or will be, is kept no more.
  func end(after rest: Duration) -> Duration? { spans.lazy.compactMap(\.until).first { $0 > rest } }

  /// The first instant after `rest` from which on a worker is kept again.
  func beginning(after rest: Duration) -> Duration? { spans.lazy.map(\.from).first { $0 > rest } }
}
