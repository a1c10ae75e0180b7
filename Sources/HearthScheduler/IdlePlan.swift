import HearthCore

/// During which parts of a rest a worker is kept, counted from the rest's beginning.
struct IdlePlan: Hashable, Sendable {
  struct Span: Hashable, Sendable {
    var from: Duration
    var until: Duration
  }

  /// In order, without overlaps.
  let spans: [Span]

  /// Rounds to nanoseconds, as instants are: an end between two of them would never be reached.
  init(spans: [Span]) {
    self.spans = spans.map {
      Span(from: .nanoseconds($0.from.nanoseconds), until: .nanoseconds($0.until.nanoseconds))
    }
  }

  static func until(_ end: Duration) -> IdlePlan { IdlePlan(spans: [Span(from: .zero, until: end)]) }

  func keeps(at rest: Duration) -> Bool {
    spans.contains { $0.from <= rest && rest < $0.until }
  }

  /// The first instant after `rest` at which a worker that is kept now, or will be, is kept no more.
  func end(after rest: Duration) -> Duration? { spans.lazy.map(\.until).first { $0 > rest } }

  /// The first instant after `rest` from which on a worker is kept again.
  func beginning(after rest: Duration) -> Duration? { spans.lazy.map(\.from).first { $0 > rest } }
}
