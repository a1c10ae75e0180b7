import ArgumentParser
import Foundation
import HearthAdmin
import HearthBundle
import HearthCore

struct ModelsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "models",
    abstract: "Show and change the models of a function that has many.",
    discussion: """
      'hearth models NAME' lists them. The models of a bundle come and go with its versions; others can be added to \
      the function and stay with it, whatever version serves.
      """,
    subcommands: [ListModels.self, AddModel.self, RemoveModel.self], defaultSubcommand: ListModels.self)
}

struct ListModels: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "List a function's models.")

  @Argument(help: "The function.")
  var name: String

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/functions/\(FunctionName(name))/models")
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [ModelView] = try AdminClient.decode(body)
    guard !rows.isEmpty else {
      return print("\(name) has no model yet. Add one: hearth models add \(name) MODEL PATH")
    }
    Terminal.table(
      [
        [
          "MODEL", "STATE", "TIER", "FILES", "EXPECTED", "MEASURED", "HITS", "MISSES", "LOADS", "LOAD", "UNUSED",
          "WAITING", "NOTE",
        ]
      ] + rows.map(\.cells))
  }
}

extension ModelView {
  fileprivate var cells: [String] {
    let kind = [pinned ? "pinned" : nil, added ? "added" : nil].compactMap(\.self).joined(separator: ", ")
    return [
      model, state, devices.isEmpty ? tier : devices.joined(separator: ", "), ByteSize(bytes: fileBytes).rounded,
      ByteSize(bytes: expectedBytes).rounded,
      measuredBytes.map { ByteSize(bytes: $0).rounded } ?? "-", "\(hits)", "\(misses)", "\(loads)",
      loadSeconds.map { "\(($0 * 1_000).rounded() / 1_000) s" } ?? "-",
      unusedSeconds.map { Duration.seconds($0.rounded()).text } ?? "-", "\(queued)", reason ?? kind,
    ]
  }
}

struct AddModel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Add a model to a function.",
    discussion: "Only the large files that the gateway lacks are sent. From a URL the gateway fetches it itself.")

  @Argument(help: "The function.")
  var name: String
  @Argument(help: "What callers are to name the model.")
  var model: String
  @Argument(help: "A file or folder of weights, or a URL: https://, http:// or s3://BUCKET/KEY.")
  var weights: String

  @Option(help: "What it takes on its device; without it, it is predicted and then measured.") var memory: String?
  @Flag(help: "Load it now, and never let it make room for others.") var pinned = false
  @Option(help: "From -100 to 100: models of lower priority make room first.") var priority = 0
  @Option(help: "The digest that a file from a URL must have.") var sha256: String?

  @OptionGroup var gateway: GatewayOptions

  private struct Command: Encodable {
    var digest: String?
    var source: String?
    var sha256: String?
    var memory: Int64?
    let pinned: Bool
    let priority: Int
  }

  func run() throws {
    let client = try gateway.client()
    let function = try FunctionName(name)
    let model = try ModelName(self.model)
    var command = Command(pinned: pinned, priority: priority)
    if let memory {
      guard let size = ByteSize(memory), size.bytes > 0 else {
        throw HearthError(.configurationInvalid, "'\(memory)' is not a value of --memory.", hint: "As in 512MiB.")
      }
      command.memory = size.bytes
    }
    if weights.contains("://") {
      command.source = weights
      command.sha256 = sha256
      Terminal.status("The gateway fetches \(weights)")
    } else {
      let upload = try WeightsUpload(weights)
      command.digest = try upload.send(to: client)
    }
    let body = [UInt8](try JSONEncoder().encode(command))
    _ = try client.call("PUT", "/v1/functions/\(function)/models/\(model)", body: .bytes(body), stall: nil)
    Terminal.clearStatus()
    if gateway.json { return try JSONOutput.print(["added": model.rawValue]) }
    print("\(model) is a model of \(function) now.")
    print("Call it: hearth call \(function) --model \(model) -d '{}'")
  }
}

struct RemoveModel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove", abstract: "Take a model away that was added.",
    discussion: "What runs may finish; what waits is refused.")

  @Argument(help: "The function.")
  var name: String
  @Argument(help: "The model.")
  var model: String

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    _ = try gateway.client().call("DELETE", "/v1/functions/\(FunctionName(name))/models/\(ModelName(model))")
    if gateway.json { return try JSONOutput.print(["removed": model]) }
    print("\(model) is no model of \(name) any more.")
  }
}

struct Devices: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the memory that workers and models share.",
    discussion: """
      GRANTED is what they hold or are reserved; OVERHEAD what none of them is charged with: the gateway's own
      processes, and on a GPU whatever else is there.
      """
  )

  @OptionGroup var gateway: GatewayOptions

  func run() throws {
    let body = try gateway.client().call("GET", "/v1/devices")
    if gateway.json { return JSONOutput.pass(body) }
    let rows: [DeviceView] = try AdminClient.decode(body)
    Terminal.table(
      [
        [
          "DEVICE", "BUDGET", "GRANTED", "OVERHEAD", "WORKERS", "WAITING", "EVICTION", "EVICTED", "IDLE", "YIELDED",
          "MODEL", "NOTE",
        ]
      ]
        + rows.map { row in
          [
            row.device, ByteSize(bytes: row.budgetBytes).rounded, ByteSize(bytes: row.grantedBytes).rounded,
            ByteSize(bytes: row.overheadBytes).rounded, "\(row.workers)", "\(row.waiting)", row.eviction,
            "\(row.evictions)", row.evictionIdleSeconds.map { Duration.seconds($0.rounded()).text } ?? "-",
            "\(row.yields)", row.model ?? "", row.note ?? "",
          ]
        })
  }
}
