import Foundation
import HearthCore

/// The layout of a gateway's data folder, and the lock that keeps a second gateway out of it.
struct DataFolder: Sendable {
  /// 107 bytes fit a Unix socket's address; `/run/w-1000000000/http.sock` takes 27 of them.
  static let pathLengthMax = 80

  let path: String

  /// Opens the folder, creating it. Throws `configuration_invalid` when it cannot be used.
  init(_ path: String) throws {
    let full = URL(fileURLWithPath: path).path
    guard full.utf8.count <= DataFolder.pathLengthMax else {
      throw HearthError(
        .configurationInvalid, "The data folder's path is longer than \(DataFolder.pathLengthMax) bytes.",
        hint: "Workers' sockets lie below it and their addresses are short; choose a shorter path.")
    }
    do {
      try FileManager.default.createDirectory(atPath: "\(full)/logs", withIntermediateDirectories: true)
    } catch {
      throw HearthError(.configurationInvalid, "The data folder '\(path)' cannot be created.")
    }
    self.path = full
    try lock()
  }

  var database: String { "\(path)/hearth.sqlite" }
  var environments: String { "\(path)/environments" }
  var arrivals: String { "\(path)/arrivals" }
  var logs: String { "\(path)/logs" }

  /// Held until the process ends, whatever way it ends.
  private func lock() throws {
    let descriptor = open("\(path)/lock", O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw HearthError(.configurationInvalid, "The data folder '\(path)' cannot be written to.")
    }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      throw HearthError(
        .configurationInvalid, "Another gateway uses the data folder '\(path)'.",
        hint: "Stop it, or choose another --data-dir.")
    }
  }
}

/// Every client and every worker takes descriptors: as many as the system allows, not the shell's usual 1,024.
func raiseDescriptorLimit() {
  var limit = rlimit()
  guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
  limit.rlim_cur = limit.rlim_max
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
