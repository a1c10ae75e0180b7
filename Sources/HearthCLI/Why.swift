import ArgumentParser
import Foundation
import HearthAdmin
import HearthCore

struct Why: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tell why a function's workers were started and stopped.",
    discussion: "The last decisions of the scaler, the newest last, with what it saw and the knob that limited it.")

  @Argument(help: "The function.")
  var name: String

  @Option(help: "One of its models, where it has many.")
  var model: String?

  @Option(help: "How many of the last decisions.")
  var last = 20

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    var path = "/v1/functions/\(try FunctionName(name))/decisions?last=\(max(0, last))"
    if let model { path += "&model=\(try ModelName(model))" }
    let body = try gateway.client().call("GET", path)
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [DecisionView] = try AdminClient.decode(body)
    guard !rows.isEmpty else { return print("Nothing was decided yet: no request has come, and no worker is kept.") }
    for row in rows {
      let until = row.lastAt > row.at ? " until \(clock(row.lastAt))" : ""
      print("\(clock(row.at))\(until)  \(row.action): \(row.reason)  [\(row.seen)]")
    }
  }

  private func clock(_ date: Date) -> String { date.formatted(.iso8601.time(includingFractionalSeconds: false)) }
}

struct TraceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace", abstract: "The recorded requests of a function.", subcommands: [Export.self])

  struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write a function's recorded requests as CSV, for 'hearth replay'.",
      discussion: "The last million requests at least, refused ones left out. Times are seconds since 1970, UTC.")

    @Argument(help: "The function.")
    var name: String

    @Option(name: .shortAndLong, help: "The file; standard output without it.")
    var output: String?

    @OptionGroup var gateway: GatewayOptions

    func run() throws {
      let path = "/v1/functions/\(try FunctionName(name))/trace"
      var file = output == nil ? FileHandle.standardOutput : nil
      var isWritten = true
      // The file is made when the first bytes are there: an error leaves what it held.
      let receive: (UnsafeRawBufferPointer) -> Bool = { bytes in
        if file == nil, let output, FileManager.default.createFile(atPath: output, contents: nil) {
          file = FileHandle(forWritingAtPath: output)
        }
        isWritten = file.map { (try? $0.write(contentsOf: Data(bytes))) != nil } ?? false
        return isWritten
      }
      do {
        _ = try gateway.client().call("GET", path, accept: "text/csv", receive: receive)
      } catch {
        guard isWritten else {
          throw HearthError(.fileUnusable, "The trace cannot be written to '\(output ?? "standard output")'.")
        }
        throw error
      }
    }
  }
}
