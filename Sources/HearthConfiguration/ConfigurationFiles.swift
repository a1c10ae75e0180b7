import Foundation
import HearthCore

/// The one reader of the files and environment variables that configure Hearth.
public enum ConfigurationFiles {
  /// Reads `hearth.yaml` at `path`, or the defaults when it is nil.
  public static func configuration(at path: String?) throws -> GatewayConfiguration {
    var configuration = GatewayConfiguration()
    guard let path else { return configuration }
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw HearthError(.configurationInvalid, "The configuration file '\(path)' cannot be read.")
    }
    try configuration.read(yaml: text, file: path)
    return configuration
  }

  /// The folder that holds `hearth_runtime`: as configured, beside an installed program, or in the checkout that the
  /// program was built in.
  public static func runtimeFolder(configured: String?) throws -> String {
    if let configured {
      guard isRuntime(configured) else {
        throw HearthError(.configurationInvalid, "The folder '\(configured)' holds no hearth_runtime.")
      }
      return URL(fileURLWithPath: configured).path
    }
    let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    var folder = program.deletingLastPathComponent()
    if isRuntime(folder.path + "/../share/hearth/runtime") { return folder.path + "/../share/hearth/runtime" }
    while folder.path != "/" {
      if isRuntime(folder.path + "/runtime") { return folder.path + "/runtime" }
      folder = folder.deletingLastPathComponent()
    }
    throw HearthError(
      .configurationInvalid, "The Python runtime was not found beside the program.",
      hint: "Set 'runtime-dir' to the folder that holds hearth_runtime.")
  }

  /// The folder of the functions that come with Hearth: beside the runtime.
  public static func templatesFolder() throws -> String {
    let runtime = URL(fileURLWithPath: try runtimeFolder(configured: nil)).standardized
    return runtime.deletingLastPathComponent().appendingPathComponent("functions").path
  }

  private static func isRuntime(_ folder: String) -> Bool {
    access("\(folder)/hearth_runtime/__main__.py", R_OK) == 0
  }

  /// This process's environment variables.
  public static var environment: [String: String] { ProcessInfo.processInfo.environment }
}

/// How a client finds a gateway: what `hearth serve` leaves in its data folder.
public struct GatewayAddress: Codable, Sendable {
  public var data: String
  public var admin: String
  public var pid: Int32

  public static let fileName = "gateway.json"
  public static let tokenFileName = "admin.token"

  public init(data: String, admin: String, pid: Int32) {
    self.data = data
    self.admin = admin
    self.pid = pid
  }

  public func write(to dataFolder: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    try encoder.encode(self).write(
      to: URL(fileURLWithPath: "\(dataFolder)/\(GatewayAddress.fileName)"), options: .atomic)
  }

  /// Reads what a gateway left. Throws `gateway_unreachable` when there is none.
  public static func read(from dataFolder: String) throws -> GatewayAddress {
    guard let data = FileManager.default.contents(atPath: "\(dataFolder)/\(fileName)"),
      let address = try? JSONDecoder().decode(GatewayAddress.self, from: data)
    else {
      throw HearthError(
        .gatewayUnreachable, "No gateway was started with the data folder '\(dataFolder)'.",
        hint: "Start one with 'hearth serve --data-dir \(dataFolder)', or name another with --data-dir.")
    }
    return address
  }
}

/// The bearer token of the admin plane.
public enum AdminToken {
  /// Reads the token in a data folder, making it at first start: 256 random bits, readable by the owner only.
  public static func readOrMake(in dataFolder: String) throws -> String {
    let path = "\(dataFolder)/\(GatewayAddress.tokenFileName)"
    if let token = read(in: dataFolder) { return token }
    var generator = SystemRandomNumberGenerator()
    let token = (0..<4).map { _ in
      let hex = String(generator.next(), radix: 16)
      return String(repeating: "0", count: 16 - hex.count) + hex
    }.joined()
    let descriptor = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw HearthError(.configurationInvalid, "The admin token could not be written to '\(path)'.")
    }
    defer { close(descriptor) }
    let text = token + "\n"
    guard Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count, fsync(descriptor) == 0 else {
      throw HearthError(.configurationInvalid, "The admin token could not be written to '\(path)'.")
    }
    return token
  }

  public static func read(in dataFolder: String) -> String? {
    guard let text = try? String(contentsOfFile: "\(dataFolder)/\(GatewayAddress.tokenFileName)", encoding: .utf8)
    else { return nil }
    let token = text.trimmingCharacters(in: .whitespacesAndNewlines)
    return token.isEmpty ? nil : token
  }
}
