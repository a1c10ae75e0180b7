import ArgumentParser
import Foundation
import HearthAdmin
import HearthCore
import HearthTransfer

struct Call: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Call a function and print its answer.",
    discussion: "The answer's body goes to standard output; with -v its fields go to standard error.")

  @Argument(help: "The function.")
  var name: String

  @Option(name: .shortAndLong, help: "The request's body as text, JSON by default.")
  var data: String?

  @Option(help: "A file to send as the request's body.")
  var file: String?

  @Option(help: "The body's content type.")
  var contentType: String?

  @Option(help: "One of its models, where it has many.")
  var model: String?

  @Option(help: "A path below the function's root, or the model's, such as /v1/items?limit=2.")
  var path = ""

  @Option(help: "A key, where the gateway needs one (default: HEARTH_KEY).")
  var key: String?

  @Flag(name: .shortAndLong, help: "Print the status and the fields of the answer.")
  var verbose = false

  @OptionGroup var gateway: GatewayOptions

  func validate() throws {
    if data != nil && file != nil { throw ValidationError("Give the body by --data or by --file, not both.") }
  }

  func run() throws {
    let name = try FunctionName(name)
    let root = try model.map { "\(name)/models/\(try ModelName($0))" } ?? name.rawValue
    let address = try gateway.client().get("/v1/gateway", as: GatewayView.self).data
    let transfer = Transfer("POST", "\(address)/functions/\(root)\(path)")
    transfer.stallTimeout = nil
    // The gateway's certificate is for its public name, not for the loopback address it is called by here.
    transfer.verifiesServer = !["127.0.0.1", "localhost", "[::1]"].contains(URL(string: address)?.host ?? "")
    transfer.headers = [("Content-Type", contentType ?? guessedType), ("Expect", "")]
    if let key = key ?? ProcessInfo.processInfo.environment["HEARTH_KEY"] {
      transfer.headers.append(("Authorization", "Bearer \(key)"))
    }
    if let file {
      guard let size = try? FileManager.default.attributesOfItem(atPath: file)[.size] as? Int64 else {
        throw HearthError(.fileUnusable, "'\(file)' cannot be read.")
      }
      transfer.body = .file(path: file, size: size)
    } else {
      transfer.body = .bytes(Array((data ?? "").utf8))
    }
    let response = try transfer.run()
    if verbose {
      Terminal.note("HTTP \(response.status)")
      for (name, value) in response.fields.sorted(by: { $0.key < $1.key }) { Terminal.note("\(name): \(value)") }
    }
    guard response.status < 400 else { throw GatewayError.decode(response.body, status: response.status) }
    FileHandle.standardOutput.write(Data(response.body))
    if isatty(STDOUT_FILENO) == 1, response.body.last != UInt8(ascii: "\n") { print() }
  }

  private var guessedType: String {
    guard let file else { return "application/json" }
    switch (file as NSString).pathExtension.lowercased() {
    case "json": return "application/json"
    case "png": return "image/png"
    case "jpg", "jpeg": return "image/jpeg"
    case "wav": return "audio/wav"
    case "txt": return "text/plain"
    default: return "application/octet-stream"
    }
  }
}
