import HearthCore

/// Requests to functions over time, as recorded or published.
public struct Trace: Sendable {
  public struct Function: Sendable {
    public var name: String
    /// What a worker of it takes; nil where the trace does not say.
    public var memory: ByteSize?

    public init(name: String, memory: ByteSize? = nil) {
      self.name = name
      self.memory = memory
    }
  }

  public struct Arrival: Sendable {
    /// Since the trace's beginning.
    public var at: HearthInstant
    public var function: Int32
    /// How long a worker was at it, in nanoseconds.
    public var duration: Int64

    public init(at: HearthInstant, function: Int, duration: Duration) {
      self.at = at
      self.function = Int32(function)
      self.duration = duration.nanoseconds
    }
  }

  /// A row that was not understood.
  public struct BadRow: Sendable {
    public let line: Int
    public let problem: String
  }

  public var functions: [Function] = []
  /// In order of time.
  public var arrivals: [Arrival] = []
  /// How long it is: at least until the last arrival.
  public var length = Duration.zero
  /// The wall clock at its beginning, for warm windows; nil where the trace does not say.
  public var beginning: Duration?
  /// The first rows that were not understood, and how many there were in all.
  public var badRows: [BadRow] = []
  public var badRowCount = 0

  public init() {}

  mutating func sort() {
    arrivals.sort { ($0.at, $0.function) < ($1.at, $1.function) }
    if let last = arrivals.last { length = max(length, .nanoseconds(last.at.nanoseconds)) }
  }
}
