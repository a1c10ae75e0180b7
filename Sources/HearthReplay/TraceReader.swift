import Foundation
import HearthCore

/// Reads traces of requests: which of the known formats it is, the first line says.
///
/// - `timestamp,function,duration`, with any further columns: Hearth's own, as `hearth trace export` writes it. Times
///   are seconds since 1970 or `YYYY-MM-DD HH:MM:SS.fff`, durations seconds.
/// - `gmt_create`, `exec_time_seconds`, `checkpoint_model_version_id`: the GenAI requests of alibaba/clusterdata.
/// - `TIMESTAMP,ContextTokens,GeneratedTokens`: the Azure LLM inference trace of 2023; one function, durations assumed.
/// - `HashOwner,HashApp,HashFunction,Trigger,1,2,…`: Azure Functions 2019, requests per minute. Those of a minute are
///   spread evenly over it; durations and memory come from the files of the same day beside it.
public struct TraceReader {
  public struct Options: Sendable {
    /// For requests whose duration the trace does not give.
    public var duration = Duration.seconds(1)
    /// Whether the first row that is not understood ends the reading.
    public var isStrict = false

    public init() {}
  }

  /// 100: more bad rows are counted, not kept.
  private static let badRowsMax = 100

  let options: Options
  private(set) var trace = Trace()
  private var indexes: [String: Int] = [:]

  /// Reads a file. Throws `trace_invalid` when its format is not known, nothing in it is a request, or, if strict, at
  /// the first bad row.
  public static func read(_ path: String, _ options: Options = Options()) throws -> Trace {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw HearthError(.traceInvalid, "The trace '\(path)' cannot be read.", hint: "Is it a file, and yours to read?")
    }
    return try read(data, folder: (path as NSString).deletingLastPathComponent, name: path, options)
  }

  static func read(_ data: Data, folder: String, name: String, _ options: Options) throws -> Trace {
    var reader = TraceReader(options: options)
    var rows = CSVRows(data)
    guard let header = rows.next() else { throw invalid(name, "it is empty") }
    let columns = header.fields
    if columns.contains("HashFunction") {
      try reader.readAzureFunctions(header: columns, &rows, folder: folder, file: (name as NSString).lastPathComponent)
    } else if let format = RowFormat(columns) {
      try reader.readRows(&rows, format)
    } else {
      throw invalid(name, "its first line names no known format")
    }
    guard !reader.trace.arrivals.isEmpty else { throw invalid(name, "it has no request") }
    reader.trace.sort()
    return reader.trace
  }

  private static func invalid(_ name: String, _ problem: String) -> HearthError {
    HearthError(
      .traceInvalid, "'\(name)' is not a trace: \(problem).",
      hint: "docs/policies.md lists the formats; the plainest begins with 'timestamp,function,duration'.")
  }

  mutating func function(named name: String, memory: ByteSize? = nil) -> Int {
    if let index = indexes[name] { return index }
    let index = trace.functions.count
    indexes[name] = index
    trace.functions.append(Trace.Function(name: name, memory: memory))
    return index
  }

  mutating func add(_ arrival: Trace.Arrival) { trace.arrivals.append(arrival) }

  mutating func setLength(_ length: Duration) { trace.length = length }

  mutating func setBeginning(_ beginning: Duration) { trace.beginning = beginning }

  /// Notes a row that is not understood.
  mutating func reject(line: Int, _ problem: String) throws {
    if options.isStrict {
      throw HearthError(.traceInvalid, "Line \(line) of the trace is not understood: \(problem).")
    }
    trace.badRowCount += 1
    if trace.badRows.count < TraceReader.badRowsMax { trace.badRows.append(Trace.BadRow(line: line, problem: problem)) }
  }

  // One request a row.

  /// Where a format of one request a row has what.
  private struct RowFormat {
    var time: Int
    var function: Int?
    var duration: Int?

    init?(_ columns: [String]) {
      func index(_ name: String) -> Int? { columns.firstIndex(of: name) }
      if let time = index("timestamp"), let function = index("function"), let duration = index("duration") {
        (self.time, self.function, self.duration) = (time, function, duration)
      } else if let time = index("gmt_create"), let function = index("checkpoint_model_version_id") {
        (self.time, self.function, duration) = (time, function, index("exec_time_seconds"))
      } else if let time = index("TIMESTAMP"), index("GeneratedTokens") != nil {
        self.time = time
      } else {
        return nil
      }
    }
  }

  private mutating func readRows(_ rows: inout CSVRows, _ format: RowFormat) throws {
    var first: Duration?
    var read: [(time: Duration, function: Int, duration: Duration)] = []
    while let row = rows.next() {
      guard row.fields.count > max(format.time, format.function ?? 0, format.duration ?? 0) else {
        try reject(line: row.line, "it has \(row.fields.count) columns")
        continue
      }
      guard let time = TraceTime.parse(row.fields[format.time]) else {
        try reject(line: row.line, "'\(row.fields[format.time].printable(limit: 40))' is not a time")
        continue
      }
      var duration = options.duration
      if let index = format.duration {
        guard let seconds = Double(row.fields[index]), seconds >= 0, seconds < 1e7 else {
          try reject(line: row.line, "'\(row.fields[index].printable(limit: 40))' is not a duration in seconds")
          continue
        }
        duration = .seconds(seconds)
      }
      let name = format.function.map { row.fields[$0] } ?? "function"
      guard !name.isEmpty else {
        try reject(line: row.line, "it names no function")
        continue
      }
      first = min(first ?? time, time)
      read.append((time, function(named: name), duration))
    }
    guard let first else { return }
    setBeginning(first)
    for row in read {
      let at = HearthInstant(nanoseconds: (row.time - first).nanoseconds)
      add(Trace.Arrival(at: at, function: row.function, duration: row.duration))
    }
  }
}
