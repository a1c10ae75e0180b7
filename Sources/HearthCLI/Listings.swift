import ArgumentParser
import Foundation
import HearthAdmin
import HearthCore
import HearthServer

extension WorkerView {
  static func table(_ rows: [WorkerView]) {
    Terminal.table(
      [["WORKER", "FUNCTION", "VERSION", "STATE", "IN FLIGHT", "PID", "DEVICE", "MEMORY", "IDLE", "NOTE"]]
        + rows.map { row in
          [
            row.worker, row.function, row.version, row.state, "\(row.inFlight)", row.pid.map(String.init) ?? "-",
            row.device, row.memoryBytes.map { ByteSize(bytes: $0).rounded } ?? "-",
            row.idleSeconds.map { Duration.seconds($0.rounded()).text } ?? "-", row.note ?? "",
          ]
        })
  }
}

extension KnobView {
  static func table(_ rows: [KnobView]) {
    Terminal.table(
      [["KNOB", "VALUE", "FROM", "MEANING", "TAKES"]]
        + rows.map { [$0.name, $0.value, $0.source, $0.meaning, $0.expected] })
  }
}

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the functions.")

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/functions")
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [FunctionView] = try AdminClient.decode(body)
    guard !rows.isEmpty else { return print("No function is deployed.") }
    Terminal.table(
      [["NAME", "VERSION", "STATE", "WORKERS", "IN FLIGHT", "QUEUED"]]
        + rows.map {
          ["\($0.name)", "\($0.number) (\($0.version))", $0.state, "\($0.workers)", "\($0.inFlight)", "\($0.queued)"]
        })
  }
}

struct Describe: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show a function, its workers and its policy.")

  @Argument(help: "The function.")
  var name: String

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/functions/\(FunctionName(name))")
    if gateway.json { return JSONOutput.pass(body) }
    let view: DescriptionView = try AdminClient.decode(body)
    let function = view.function
    print("\(function.name), version \(function.number) (\(function.version)), \(function.state)")
    if let description = function.description { print(description) }
    if let reason = function.reason { print("Loads fail: \(reason)") }
    print("\(function.workers) workers, \(function.inFlight) requests in flight, \(function.queued) waiting\n")
    if !view.workers.isEmpty {
      WorkerView.table(view.workers)
      print()
    }
    KnobView.table(view.policy)
    for (feature, reason) in view.missingIsolation.sorted(by: { $0.key < $1.key }) {
      print("\nThis machine lacks \(feature): \(reason).")
    }
  }
}

struct Workers: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the workers.")

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/workers")
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [WorkerView] = try AdminClient.decode(body)
    guard !rows.isEmpty else { return print("No worker runs.") }
    WorkerView.table(rows)
  }
}

struct Versions: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List a function's versions, newest first.")

  @Argument(help: "The function.")
  var name: String

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/functions/\(FunctionName(name))/versions")
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [VersionView] = try AdminClient.decode(body)
    Terminal.table(
      [["NUMBER", "DIGEST", "DEPLOYED", ""]]
        + rows.map { ["\($0.number)", $0.digest, $0.deployedAt.formatted(.iso8601), $0.isCurrent ? "current" : ""] })
  }
}

struct Version: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Print the version of hearth.")

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    if json { return try JSONOutput.print(["version": Gateway.version]) }
    print("hearth \(Gateway.version)")
  }
}
