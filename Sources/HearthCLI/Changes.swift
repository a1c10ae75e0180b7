import ArgumentParser
import Foundation
import HearthCore

struct Policy: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show or change a function's policy, live.",
    discussion: """
      Without options prints each knob, its value and where that comes from. Changes take effect at once and survive a \
      restart; '--reset KNOB' goes back to function.yaml or the default.
      """)

  @Argument(help: "The function.")
  var name: String

  @Option(help: "Workers kept even when nobody calls.") var minWorkers: String?
  @Option(help: "Most workers at once.") var maxWorkers: String?
  @Option(help: "Idle workers kept above those in use.") var bufferWorkers: String?
  @Option(help: "Requests that may wait.") var maxQueueLength: String?
  @Option(help: "Most growth of the pool in one decision.") var maxUpscaleFactor: String?
  @Option(help: "How long an idle worker is kept, or 'forever'.") var keepAlive: String?
  @Option(help: "How long a request may wait for a worker.") var coldStartTimeout: String?
  @Option(help: "A load without progress for this long has failed.") var loadStallTimeout: String?
  @Option(help: "How long until a response must begin.") var firstByteTimeout: String?
  @Option(help: "Longest silence within a response.") var idleTimeout: String?
  @Option(help: "Longest time for a whole request, or 'none'.") var requestTimeout: String?
  @Option(help: "How long requests in flight may finish when a worker stops.") var drainTimeout: String?
  @Option(help: "A knob to set back; may be repeated.") var reset: [String] = []

  @OptionGroup var gateway: GatewayOptions

  private var changes: [String: String?] {
    let options: [(String, String?)] = [
      ("min-workers", minWorkers), ("max-workers", maxWorkers), ("buffer-workers", bufferWorkers),
      ("max-queue-length", maxQueueLength), ("max-upscale-factor", maxUpscaleFactor), ("keep-alive", keepAlive),
      ("cold-start-timeout", coldStartTimeout), ("load-stall-timeout", loadStallTimeout),
      ("first-byte-timeout", firstByteTimeout), ("idle-timeout", idleTimeout), ("request-timeout", requestTimeout),
      ("drain-timeout", drainTimeout),
    ]
    var changes: [String: String?] = [:]
    for (knob, value) in options { if let value { changes[knob] = .some(value) } }
    for knob in reset { changes[knob] = .some(nil) }
    return changes
  }

  func run() throws {
    let client = try gateway.client()
    let path = "/v1/functions/\(try FunctionName(name))/policy"
    let changes = changes
    let body =
      changes.isEmpty
      ? try client.call("GET", path)
      : try client.call("PATCH", path, body: .bytes([UInt8](JSONEncoder().encode(changes))))
    if gateway.json { return JSONOutput.pass(body) }
    KnobRow.table(try AdminClient.decode(body))
  }
}

struct Delete: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Stop serving a function.",
    discussion: "Requests in flight finish; its versions are forgotten.")

  @Argument(help: "The function.")
  var name: String

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    _ = try gateway.client().call("DELETE", "/v1/functions/\(try FunctionName(name))")
    if gateway.json { return try JSONOutput.print(["deleted": name]) }
    print("\(name) is deleted.")
  }
}

struct Logs: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print a function's log.", discussion: "Each line: time, worker, request, text.")

  @Argument(help: "The function.")
  var name: String

  @Flag(name: .shortAndLong, help: "Go on as lines are added.")
  var follow = false

  @Option(name: [.customShort("n"), .long], help: "How many of the last lines.")
  var lines = 100

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    struct Line: Encodable {
      let time: String
      let worker: String
      let request: String
      let text: String
    }
    let asJSON = gateway.json
    let path = "/v1/functions/\(try FunctionName(name))/logs?lines=\(lines)&follow=\(follow)"
    var pending: [UInt8] = []
    _ = try gateway.client().call(
      "GET", path, accept: "text/plain", stall: nil,
      receive: { bytes in
        guard asJSON else {
          FileHandle.standardOutput.write(Data(bytes))
          return true
        }
        pending.append(contentsOf: bytes)
        while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
          let parts = String(decoding: pending[..<end], as: UTF8.self)
            .split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
          pending.removeFirst(end + 1)
          guard parts.count == 4 else { continue }
          let line = Line(time: parts[0], worker: parts[1], request: parts[2], text: parts[3])
          let encoder = JSONEncoder()
          encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
          if let data = try? encoder.encode(line) { FileHandle.standardOutput.write(data + Data("\n".utf8)) }
        }
        return true
      })
  }
}
