import ArgumentParser
import Foundation
import HearthBundle
import HearthCore
import HearthReplay

struct ReplayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract: "Try policies on recorded traffic: what would they have cost?",
    discussion: """
      Runs the gateway's own scheduler against a trace in virtual time. TRACE is what 'hearth trace export' writes, a \
      CSV with the columns timestamp, function and duration, or a public trace (docs/policies.md lists them). Workers, \
      their starts and the clock are simulated; every decision is the one a gateway would take.
      """)

  @Argument(help: "A file of requests.")
  var trace: String

  @Option(
    name: .customLong("policy"), parsing: .singleValue,
    help: "A file with 'scaling:' as in function.yaml, or knobs: keep-alive=10m,max-workers=4. May be repeated.")
  var policies: [String] = []

  @Flag(help: "Compare with keep-alive 10m, learned, adaptive, cost and forever.")
  var compare = false

  @Option(help: "How long a worker takes to start.") var startTime = "1s"
  @Option(help: "Memory of a worker, where the trace does not say.") var workerMemory = "1GiB"
  @Option(help: "Memory for all workers; without it there is no limit.") var workersMemory: String?
  @Option(help: "How many workers may start at once; without it there is no limit.") var startsMax: Int?
  @Option(help: "Which idle workers make room for others: lru or gdsf.") var eviction = "lru"
  @Flag(help: "Let starts and requests take no time: what starts is what the memory could not keep.")
  var instant = false
  @Option(help: "Duration of a request, where the trace does not say.") var duration = "1s"
  @Option(help: "Write a picture of workers and cold starts over time to this file (SVG).") var plot: String?
  @Flag(help: "Stop at the first row that is not understood.") var strict = false
  @Flag(help: "Print the table as CSV.") var csv = false
  @Flag(help: "Print JSON.") var json = false

  func run() throws {
    var reading = TraceReader.Options()
    reading.duration = try parse(duration, "duration", Duration.init(hearth:))
    reading.isStrict = strict
    var options = Replay.Options()
    options.startTime = try parse(startTime, "start-time", Duration.init(hearth:))
    options.workerMemory = try parse(workerMemory, "worker-memory", ByteSize.init)
    options.workersMemory = try workersMemory.map { try parse($0, "workers-memory", ByteSize.init) }
    options.eviction = try parse(eviction, "eviction", Eviction.init(rawValue:))
    options.isInstant = instant
    options.startsMax = try startsMax.map { count in
      guard count > 0 else {
        throw HearthError(.configurationInvalid, "'\(count)' is not a value of --starts-max.", hint: "Give 1 or more.")
      }
      return count
    }
    let candidates = try namedPolicies()
    Terminal.status("Reading \(trace)")
    let trace = try TraceReader.read(trace, reading)
    warn(of: trace)
    let rows = replay(trace, candidates, options)
    if let plot { try write(ReplayPlot.svg(title: title(trace), rows.map { ($0.policy, $0.report) }), to: plot) }
    if json {
      try JSONOutput.print(rows)
    } else if csv {
      for cells in [ReplayRow.headings] + rows.map(\.cells) { print(cells.map(quoted).joined(separator: ",")) }
    } else {
      print("\(title(trace)): \(trace.arrivals.count) requests to \(trace.functions.count) functions\n")
      Terminal.table([ReplayRow.headings] + rows.map(\.cells))
    }
  }

  /// One replay for each policy, as many at a time as there are cores.
  private func replay(
    _ trace: Trace, _ candidates: [(String, FunctionPolicy)], _ options: Replay.Options
  ) -> [ReplayRow] {
    let progress = ReplayProgress(count: candidates.count)
    let rows = ReplayRows(count: candidates.count)
    DispatchQueue.concurrentPerform(iterations: candidates.count) { index in
      let (name, policy) = candidates[index]
      let report = Replay.run(trace, policy, options) { progress.report($0, of: index) }
      rows.set(ReplayRow(name, report), at: index)
    }
    Terminal.clearStatus()
    return rows.all
  }

  private func namedPolicies() throws -> [(String, FunctionPolicy)] {
    var named = try policies.map { ($0, try policy($0)) }
    if compare || named.isEmpty {
      let usual =
        compare
        ? ["keep-alive=10m", "keep-alive=learned", "keep-alive=adaptive", "keep-alive=cost", "keep-alive=forever"]
        : [""]
      named += try usual.map { ($0.isEmpty ? "defaults" : $0, try policy($0)) }
    }
    return named
  }

  /// A policy from a file, or from knobs on the command line.
  private func policy(_ text: String) throws -> FunctionPolicy {
    guard text.isEmpty || text.contains("=") && !FileManager.default.fileExists(atPath: text) else {
      guard let content = try? String(contentsOfFile: text, encoding: .utf8) else {
        throw HearthError(.policyInvalid, "The policy '\(text)' cannot be read.", hint: "Give a file, or KNOB=VALUE.")
      }
      return try FunctionPolicy(parsing: content, file: text)
    }
    var values: [String: String] = [:]
    for part in text.split(separator: ",") {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard pair.count == 2, PolicyKnob.named(pair[0]) != nil else {
        let nearest = pair[0].nearest(in: PolicyKnob.all.map(\.name))
        throw HearthError(
          .policyInvalid, "'\(part)' is not KNOB=VALUE.", hint: nearest.map { "Did you mean '\($0)'?" })
      }
      values[pair[0]] = pair[1]
    }
    return try FunctionPolicy().overridden(by: values)
  }

  /// A cell of CSV (RFC 4180).
  private func quoted(_ cell: String) -> String {
    cell.contains(where: { ",\"\n".contains($0) }) ? "\"\(cell.replacingOccurrences(of: "\"", with: "\"\""))\"" : cell
  }

  private func parse<Value>(_ text: String, _ name: String, _ read: (String) -> Value?) throws -> Value {
    guard let value = read(text) else {
      throw HearthError(.configurationInvalid, "'\(text)' is not a value of --\(name).")
    }
    return value
  }

  private func warn(of trace: Trace) {
    for row in trace.badRows.prefix(10) { Terminal.note("line \(row.line): \(row.problem); left out") }
    let more = trace.badRowCount - min(10, trace.badRows.count)
    if more > 0 { Terminal.note("\(more) more rows were left out") }
  }

  private func title(_ trace: Trace) -> String {
    let seconds = Int(trace.length.seconds)
    let length =
      switch seconds {
      case ..<600: "\(seconds) seconds"
      case ..<36_000: "\((seconds + 30) / 60) minutes"
      case ..<360_000: "\((seconds + 1_800) / 3_600) hours"
      default: "\((seconds + 43_200) / 86_400) days"
      }
    return "\((self.trace as NSString).lastPathComponent), \(length)"
  }

  private func write(_ text: String, to path: String) throws {
    do {
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    } catch {
      throw HearthError(.fileUnusable, "The picture '\(path)' cannot be written.")
    }
  }
}

/// How far several replays are together.
private final class ReplayProgress: @unchecked Sendable {
  private let lock = NSLock()
  private var shares: [Double]

  init(count: Int) { shares = Array(repeating: 0, count: count) }

  func report(_ share: Double, of index: Int) {
    lock.withLock {
      shares[index] = share
      Terminal.status("Replaying: \(Int(shares.reduce(0, +) / Double(shares.count) * 100)) %")
    }
  }
}

private final class ReplayRows: @unchecked Sendable {
  private let lock = NSLock()
  private var rows: [ReplayRow?]

  init(count: Int) { rows = Array(repeating: nil, count: count) }

  func set(_ row: ReplayRow, at index: Int) { lock.withLock { rows[index] = row } }

  var all: [ReplayRow] { lock.withLock { rows.compactMap { $0 } } }
}

/// One policy's results, as the table, CSV and JSON have them.
struct ReplayRow: Encodable, Sendable {
  static let headings = [
    "POLICY", "COLD", "COLD %", "P50 %", "P75 %", "P99 %", "WAIT P50", "WAIT P99", "IDLE WORKER-H", "IDLE GIB-H",
    "PEAK", "STARTS", "PREWARMS", "REFUSED",
  ]

  let policy: String
  let report: ReplayReport

  init(_ policy: String, _ report: ReplayReport) {
    self.policy = policy
    self.report = report
  }

  var cells: [String] {
    func percent(_ share: Double) -> String { String(format: "%.2f", share * 100) }
    return [
      policy, "\(report.cold)", percent(report.coldShare), percent(report.coldShare(quantile: 0.5)),
      percent(report.coldShare(quantile: 0.75)), percent(report.coldShare(quantile: 0.99)),
      report.wait(quantile: 0.5).shortText, report.wait(quantile: 0.99).shortText,
      String(format: "%.1f", report.idleSeconds / 3_600),
      String(format: "%.1f", report.idleByteSeconds / 3_600 / 1_073_741_824), "\(report.workersMax)",
      "\(report.starts)", "\(report.prewarms)", "\(report.refused)",
    ]
  }

  private enum Key: String, CodingKey {
    case policy, requests, coldStarts, coldShare, coldShareByFunction, waitSeconds, idleWorkerSeconds, idleByteSeconds
    case workerSeconds, peakWorkers, starts, prewarms, reclaimed, refused
  }

  func encode(to encoder: any Encoder) throws {
    var row = encoder.container(keyedBy: Key.self)
    try row.encode(policy, forKey: .policy)
    try row.encode(report.requests, forKey: .requests)
    try row.encode(report.cold, forKey: .coldStarts)
    try row.encode(report.coldShare, forKey: .coldShare)
    let shares = ["p50": 0.5, "p75": 0.75, "p99": 0.99]
    try row.encode(shares.mapValues { report.coldShare(quantile: $0) }, forKey: .coldShareByFunction)
    try row.encode(["p50": 0.5, "p99": 0.99].mapValues { report.wait(quantile: $0).seconds }, forKey: .waitSeconds)
    try row.encode(report.idleSeconds, forKey: .idleWorkerSeconds)
    try row.encode(report.idleByteSeconds, forKey: .idleByteSeconds)
    try row.encode(report.workerSeconds, forKey: .workerSeconds)
    try row.encode(report.workersMax, forKey: .peakWorkers)
    try row.encode(report.starts, forKey: .starts)
    try row.encode(report.prewarms, forKey: .prewarms)
    try row.encode(report.reclaimed, forKey: .reclaimed)
    try row.encode(report.refused, forKey: .refused)
  }
}

extension Duration {
  /// For tables: `0`, `12ms`, `3.4s`, `2.1m`.
  fileprivate var shortText: String {
    switch seconds {
    case 0: "0"
    case ..<0.0995: String(format: "%.1fms", milliseconds)
    case ..<60: String(format: "%.2fs", seconds)
    default: String(format: "%.1fm", seconds / 60)
    }
  }
}
