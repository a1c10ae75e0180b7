import ArgumentParser
import Foundation
import HearthConfiguration
import HearthCore
import HearthTransfer

/// How a command finds its gateway.
struct GatewayOptions: ParsableArguments {
  @Option(help: "The gateway's data folder.")
  var dataDir = "hearth-data"

  @Flag(help: "Print JSON.")
  var json = false

  /// The gateway by HEARTH_ADMIN and HEARTH_TOKEN, or by its data folder.
  func client() throws -> AdminClient {
    let environment = ConfigurationFiles.environment
    if let admin = environment["HEARTH_ADMIN"] {
      guard let token = environment["HEARTH_TOKEN"] else {
        throw HearthError(.unauthorized, "HEARTH_ADMIN is set but HEARTH_TOKEN is not.", hint: "Set both.")
      }
      return AdminClient(base: admin, token: token)
    }
    let address = try GatewayAddress.read(from: dataDir)
    guard let token = AdminToken.read(in: dataDir) else {
      throw HearthError(.unauthorized, "The admin token in '\(dataDir)' cannot be read.", hint: "Run as its owner.")
    }
    return AdminClient(base: address.admin, token: token)
  }
}

/// Calls of the admin API.
struct AdminClient {
  let base: String
  let token: String

  /// Makes a call and returns its answer's body. Throws the gateway's own error.
  func call(
    _ method: String, _ path: String, body: Transfer.Body = .none, type: String = "application/json",
    accept: String = "application/json", stall: Duration? = .seconds(60),
    progress: ((Int64, Int64) -> Void)? = nil, receive: ((UnsafeRawBufferPointer) -> Bool)? = nil
  ) throws -> [UInt8] {
    let transfer = Transfer(method, base + path)
    transfer.headers = [
      ("Authorization", "Bearer \(token)"), ("Content-Type", type), ("Accept", accept), ("Expect", ""),
    ]
    transfer.body = body
    transfer.stallTimeout = stall
    if let progress {
      transfer.progress = { moved, total in
        progress(moved, total)
        return true
      }
    }
    transfer.receive = receive
    let response: Transfer.Response
    do {
      response = try transfer.run()
    } catch let error as HearthError where error.code == .gatewayUnreachable {
      throw HearthError(
        .gatewayUnreachable, "The gateway at \(base) does not answer.", hint: "Is 'hearth serve' running?")
    }
    guard response.status < 400 else { throw GatewayError.decode(response.body, status: response.status) }
    return response.body
  }

  /// Makes a call and reads its JSON.
  func get<Value: Decodable>(_ path: String, as type: Value.Type) throws -> Value {
    try AdminClient.decode(call("GET", path))
  }

  static func decode<Value: Decodable>(_ bytes: [UInt8]) throws -> Value {
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .iso8601
    do {
      return try decoder.decode(Value.self, from: Data(bytes))
    } catch {
      throw HearthError(
        .internalError, "The gateway's answer was not understood.",
        hint: "Do 'hearth' and the gateway have the same version?",
        cause: String(describing: error))
    }
  }
}

/// An error as the gateway sent it.
enum GatewayError {
  struct Envelope: Decodable {
    struct Content: Decodable {
      let code: String
      let message: String
      let hint: String?
    }
    let error: Content
  }

  static func decode(_ body: [UInt8], status: Int) -> HearthError {
    guard let envelope = try? JSONDecoder().decode(Envelope.self, from: Data(body)) else {
      return HearthError(.internalError, "The gateway answered with status \(status).")
    }
    return error(envelope.error)
  }

  static func error(_ content: Envelope.Content) -> HearthError {
    let code = ErrorCode.all.first { $0.name == content.code } ?? .internalError
    return HearthError(code, content.message, hint: content.hint)
  }
}
