import Foundation
import HearthCore
import Testing

@testable import HearthReplay

private func policy(_ change: (inout FunctionPolicy) -> Void = { _ in }) -> FunctionPolicy {
  var policy = FunctionPolicy()
  change(&policy)
  return policy
}

private func read(_ text: String, _ change: (inout TraceReader.Options) -> Void = { _ in }) throws -> Trace {
  var options = TraceReader.Options()
  change(&options)
  return try TraceReader.read(Data(text.utf8), folder: "/nowhere", name: "test.csv", options)
}

@Suite("Traces")
struct TraceReaderTests {
  @Test("Hearth's own rows, in any order, with columns it does not know")
  func rows() throws {
    let trace = try read(
      """
      timestamp,function,duration,waited,start
      1700000060.5,b,0.25,0,hot
      1700000000.5,a,1,0,cold

      """)
    #expect(trace.functions.map(\.name) == ["b", "a"])
    #expect(trace.arrivals.map(\.at.nanoseconds) == [0, 60_000_000_000])
    #expect(trace.arrivals.map(\.duration) == [1_000_000_000, 250_000_000])
    #expect(trace.beginning == .seconds(1_700_000_000.5))
    #expect(trace.length == .seconds(60))
  }

  @Test("The GenAI and LLM traces' columns, with dates")
  func dates() throws {
    let genai = try read(
      "gmt_create,predict_type,exec_time_seconds,checkpoint_model_version_id\n"
        + "2024-11-15 16:57:50,A,32.0,M0000\n2024-11-16 16:57:50,A,1,M0001\n")
    #expect(genai.arrivals.map(\.at.nanoseconds) == [0, 86_400_000_000_000])
    #expect(genai.functions.map(\.name) == ["M0000", "M0001"])
    let llm = try read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,1,8\n"
    ) { $0.duration = .seconds(7) }
    #expect(llm.arrivals.map(\.duration) == [7_000_000_000, 7_000_000_000])
    #expect(abs(llm.arrivals[1].at.nanoseconds - 52_000_000) < 1_000)
  }

  @Test("Azure's minutes are spread evenly, with durations and memory of the files beside")
  func azure() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
      "azure-\(UInt64.random(in: 0...UInt64.max))")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    func write(_ name: String, _ text: String) throws {
      try text.write(to: folder.appendingPathComponent(name), atomically: true, encoding: .utf8)
    }
    try write(
      "invocations.csv", "HashOwner,HashApp,HashFunction,Trigger,480,481,482\no,p,f,http,1,0,3\no,p,g,timer,0,1,x\n")
    try write("durations.csv", "HashOwner,HashApp,HashFunction,Average,Count\no,p,f,1500,4\n")
    try write("memory.csv", "HashFunction,HashOwner,HashApp,AverageAllocatedMb\nf,o,p,200\n")
    let trace = try TraceReader.read(folder.appendingPathComponent("invocations.csv").path)
    #expect(trace.arrivals.map { $0.at.nanoseconds / 1_000_000_000 } == [30, 90, 130, 150, 170])
    #expect(trace.arrivals[0].duration == 1_500_000_000)
    #expect(trace.arrivals[1].duration == 1_000_000_000, "the file does not say")
    #expect(trace.functions[0].memory == .mib(200) && trace.functions[1].memory == nil)
    #expect(trace.length == .seconds(180))
    #expect(trace.badRows.map(\.line) == [3])
  }

  @Test("Bad rows are named by their line and left out; strict reading stops there")
  func badRows() throws {
    let text = """
      timestamp,function,duration
      yesterday,a,1
      5,a,-1
      5,,1
      5,a
      5,a,nan
      1e300,a,1
      5,"a,b",1
      6,a,1
      """
    let trace = try read(text)
    #expect(trace.badRows.map(\.line) == [2, 3, 4, 5, 6, 7])
    #expect(trace.badRowCount == 6)
    #expect(trace.functions.map(\.name) == ["a,b", "a"])
    #expect(throws: HearthError.self) { try read(text) { $0.isStrict = true } }
  }

  @Test(
    "What is no trace is refused with what to do",
    arguments: ["", "hello\nworld\n", "timestamp,function,duration\n", "timestamp,function,duration\nx,y,z\n"])
  func noTrace(text: String) {
    let error = #expect(throws: HearthError.self) { try read(text) }
    #expect(error?.code == .traceInvalid && error?.hint != nil)
  }
}

@Suite("Replays")
struct ReplayTests {
  private func trace(_ times: [Double], lasting duration: Double = 1, functions: Int = 1) -> Trace {
    var trace = Trace()
    trace.functions = (0..<functions).map { Trace.Function(name: "f\($0)") }
    trace.arrivals = times.enumerated().map { index, time in
      Trace.Arrival(
        at: HearthInstant(nanoseconds: Int64(time * 1e9)), function: index % functions, duration: .seconds(duration))
    }
    trace.sort()
    return trace
  }

  @Test("Cold starts, waits and idle time of a few requests, counted by hand")
  func byHand() {
    // A start takes 2 s, a request 1 s: 0-2 start, 2-3 work, idle until 10, work until 11, idle until 71, gone; 100-102
    // start, 102-103 work, idle until the trace ends at 120.
    var trace = trace([0, 10, 100])
    trace.length = .seconds(120)
    var options = Replay.Options()
    options.startTime = .seconds(2)
    options.workerMemory = .gib(2)
    let report = Replay.run(trace, policy { $0.keepAlive = .fixed(.seconds(60)) }, options)
    #expect(report.cold == 2 && report.requests == 3 && report.starts == 2 && report.workersMax == 1)
    #expect(abs(report.idleSeconds - (7 + 60 + 17)) < 1e-6)
    #expect(abs(report.idleByteSeconds - 84 * 2_147_483_648) < 1)
    #expect(abs(report.workerSeconds - (71 + 20)) < 1e-6)
    #expect(report.wait(quantile: 0.1) == .zero)
    #expect(abs(report.wait(quantile: 0.99).seconds - 2) < 0.05)
    #expect(report.timeline.parts.map(\.coldStarts).reduce(0, +) == 2)
  }

  @Test("The same trace and policy give the same report")
  func deterministic() {
    var times: [Double] = []
    var state: UInt64 = 7
    for _ in 0..<500 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      times.append((times.last ?? 0) + Double(state >> 40) / Double(1 << 24) * 90)
    }
    let trace = trace(times, lasting: 5, functions: 7)
    for keepAlive in [FunctionPolicy.KeepAlive.learned, .adaptive, .cost, .fixed(.seconds(60))] {
      let reports = (0..<2).map { _ in Replay.run(trace, policy { $0.keepAlive = keepAlive }) }
      #expect(reports[0].cold == reports[1].cold && reports[0].idleSeconds == reports[1].idleSeconds)
      #expect(reports[0].requests == 500 && reports[0].refused == 0)
    }
  }

  @Test("Memory is never exceeded, idle workers make room, and every request is served")
  func budget() {
    var options = Replay.Options()
    options.workersMemory = .gib(3)
    options.startsMax = 2
    // Ten functions by turns, a request every two seconds, on a node for three workers.
    let trace = trace((0..<600).map { Double($0) * 2 }, lasting: 0.5, functions: 10)
    let report = Replay.run(trace, policy(), options)
    #expect(report.workersMax <= 3)
    #expect(report.reclaimed > 300)
    #expect(report.refused == 0)
    #expect(report.wait(quantile: 0.99) < .seconds(10))
  }

  @Test("A worker that yields and does not finish in time is gone, with what it had")
  func yieldedTooLong() {
    var trace = Trace()
    trace.functions = [Trace.Function(name: "long"), Trace.Function(name: "waiting")]
    trace.arrivals = [
      Trace.Arrival(at: HearthInstant(nanoseconds: 0), function: 0, duration: .seconds(600)),
      Trace.Arrival(at: HearthInstant(nanoseconds: 1_000_000_000), function: 1, duration: .seconds(1)),
    ]
    trace.length = .seconds(700)
    var options = Replay.Options()
    options.workersMemory = .gib(1)
    let report = Replay.run(trace, policy { $0.drainTimeout = .seconds(5) }, options)
    #expect(report.cold == 2 && report.workersMax == 1)
    #expect(report.wait(quantile: 0.99) > .seconds(30) && report.wait(quantile: 0.99) < .seconds(45))
  }

  @Test("A worker larger than the node is refused, not waited for")
  func tooLarge() {
    var options = Replay.Options()
    options.workersMemory = .mib(512)
    let report = Replay.run(trace([0, 1, 2, 3]), policy(), options)
    #expect(report.starts >= 1 && report.workersMax == 0)
    #expect(report.refused == 4)
  }

  @Test("A timer's cold starts vanish with a learned keep-alive, at a fraction of the idle time")
  func learned() {
    let trace = trace((0..<200).map { Double($0) * 1_200 })
    let fixed = Replay.run(trace, policy { $0.keepAlive = .fixed(.seconds(600)) })
    let learned = Replay.run(trace, policy { $0.keepAlive = .learned })
    #expect(fixed.cold == 200)
    #expect(learned.cold < 20)
    #expect(learned.idleSeconds < fixed.idleSeconds)
  }

  @Test("The picture is well-formed and shows each policy")
  func plot() throws {
    let report = Replay.run(trace([0, 10, 100]), policy())
    let svg = ReplayPlot.svg(title: "A <trace> & more", [("one", report), ("two", report)])
    let parser = XMLChecker(svg)
    #expect(parser.isWellFormed)
    #expect(svg.contains(">one<") && svg.contains(">two<") && svg.contains("A &lt;trace> &amp; more"))
    #expect(!svg.contains("nan") && !svg.contains("inf"))
  }
}

/// Whether tags are balanced; enough for what has no text but labels.
private struct XMLChecker {
  var isWellFormed = true

  init(_ text: String) {
    var open: [Substring] = []
    for tag in text.split(separator: "<").dropFirst(0) {
      guard let end = tag.firstIndex(of: ">") else {
        isWellFormed = false
        return
      }
      let content = tag[..<end]
      let name = content.prefix { $0 != " " && $0 != "/" }
      if content.hasPrefix("/") {
        if open.popLast() != content.dropFirst() { isWellFormed = false }
      } else if !content.hasSuffix("/") {
        open.append(name)
      }
    }
    if !open.isEmpty { isWellFormed = false }
  }
}
