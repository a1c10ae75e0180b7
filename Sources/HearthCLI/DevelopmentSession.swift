import Foundation
import HearthAdmin
import HearthBundle
import HearthCore

/// Keeps a gateway at what a function's folder says: the loop behind `hearth run`.
struct DevelopmentSession {
  /// 300 ms: sooner than a hand gets from the editor to the shell.
  private static let lookInterval: useconds_t = 300_000
  /// 200 ms between two looks at a worker that loads.
  private static let loadInterval: useconds_t = 200_000

  let folder: String
  /// Where callers find the gateway.
  let address: String
  let client: AdminClient
  /// Whether the gateway's data folder is for this folder alone, so that what else it serves is of an earlier name.
  let ownsGateway: Bool
  /// The function as it is served now; another name in function.yaml makes it another one.
  private var served: FunctionName?

  init(folder: String, address: String, client: AdminClient, ownsGateway: Bool) {
    self.folder = folder
    self.ownsGateway = ownsGateway
    self.address = address
    self.client = client
  }

  /// Deploys, and again after each change, until its thread is cancelled.
  mutating func run() {
    var seen = FolderState(folder)
    deploy(seen)
    while !Thread.current.isCancelled {
      usleep(DevelopmentSession.lookInterval)
      let now = FolderState(folder)
      guard now != seen else { continue }
      // An editor may be at it still.
      usleep(DevelopmentSession.lookInterval)
      guard FolderState(folder) == now else { continue }
      seen = now
      deploy(now)
    }
  }

  private mutating func deploy(_ seen: FolderState) {
    do {
      let bundle = try LocalBundle(folder)
      let outcome = try Deployment(client: client).deploy(bundle, as: bundle.spec.name)
      Terminal.note("\(outcome.name): version \(outcome.number) is served.")
      if served != bundle.spec.name { try begin(bundle, seen) }
    } catch let error as HearthError {
      Terminal.complain(error)
    } catch {
      Terminal.note("error: \(error)")
    }
  }

  /// A function that was not served before.
  private mutating func begin(_ bundle: LocalBundle, _ seen: FolderState) throws {
    let name = bundle.spec.name
    let others = ownsGateway ? try client.get("/v1/functions", as: [FunctionView].self).map(\.name) : []
    for other in Set(others + [served?.rawValue].compactMap(\.self)) where other != name.rawValue {
      _ = try client.call("DELETE", "/v1/functions/\(other)")
    }
    served = name
    followLog(of: name)
    if bundle.spec.models == nil, bundle.spec.policy.workersMin == 0 {
      // Loaded at once, and again after each change: what is wrong with it shows before it is called.
      let changes = try JSONEncoder().encode(["min-workers": "1"])
      _ = try client.call("PATCH", "/v1/functions/\(name)/policy", body: .bytes([UInt8](changes)))
      try awaitWorker(of: name, since: seen)
    }
    let models = bundle.spec.models == nil ? "" : "/models/MODEL"
    Terminal.note("Call it: POST \(address)/functions/\(name)\(models)")
    Terminal.note("Watching \(folder); Ctrl-C ends.")
  }

  /// Waits until a worker has loaded, has failed to, or a file changes.
  private func awaitWorker(of name: FunctionName, since seen: FolderState) throws {
    while FolderState(folder) == seen {
      let view = try client.get("/v1/functions/\(name)", as: DescriptionView.self)
      if let reason = view.function.reason { return Terminal.note("error: It cannot be loaded: \(reason)") }
      if view.function.state == "ready" { return }
      usleep(DevelopmentSession.loadInterval)
    }
  }

  /// Prints the function's log as it grows, until the function is deleted.
  private func followLog(of name: FunctionName) {
    let client = client
    Thread.detachNewThread {
      _ = try? client.call(
        "GET", "/v1/functions/\(name)/logs?lines=0&follow=true", accept: "text/plain", stall: nil,
        receive: { bytes in
          FileHandle.standardOutput.write(Data(bytes))
          return true
        })
    }
  }
}

/// What a folder's files looked like: their times of change and sizes.
private struct FolderState: Equatable {
  private struct File: Equatable {
    let seconds: Int
    let nanoseconds: Int
    let size: Int64
  }

  private let files: [String: File]

  init(_ folder: String) {
    var files: [String: File] = [:]
    for path in (try? FolderListing.files(of: folder)) ?? [] {
      var status = stat()
      guard lstat("\(folder)/\(path)", &status) == 0 else { continue }
      files[path] = File(
        seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, size: Int64(status.st_size))
    }
    self.files = files
  }
}
