import ArgumentParser
import Foundation
import HearthCore

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
