import CPlatform
import Foundation
import HearthCore

/// Starts programs: in a session of their own, with exactly the descriptors they are given.
enum ChildProcess {
  /// Starts a program with `descriptors[i]` as its descriptor `i`. Returns its process id.
  static func spawn(
    _ arguments: [String], environment: [String: String], directory: String? = nil, descriptors: [Int32]
  ) throws -> pid_t {
    var argumentPointers = arguments.map { strdup($0) } + [nil]
    var environmentPointers = environment.map { strdup("\($0)=\($1)") } + [nil]
    defer { for pointer in argumentPointers + environmentPointers { free(pointer) } }
    var pid: pid_t = 0
    let failure = hearth_spawn(
      arguments[0], &argumentPointers, &environmentPointers, directory, descriptors, Int32(descriptors.count), &pid)
    guard failure == 0 else {
      throw HearthError(
        .internalError, "A program could not be started: \(String(cString: strerror(failure))).", cause: arguments[0])
    }
    return pid
  }

  /// Runs a program to its end, blocking, and hands on each line it prints. Returns its exit status.
  static func run(
    _ arguments: [String], environment: [String: String], directory: String? = nil, line: (String) -> Void
  ) throws -> Int32 {
    let pipe = try DescriptorPair.pipe()
    let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
    defer { close(null) }
    let pid: pid_t
    do {
      defer { close(pipe.theirs) }
      pid = try spawn(
        arguments, environment: environment, directory: directory, descriptors: [null, pipe.theirs, pipe.theirs])
    } catch {
      close(pipe.ours)
      throw error
    }
    if let output = fdopen(pipe.ours, "r") {
      var buffer: UnsafeMutablePointer<CChar>?
      var capacity = 0
      while getline(&buffer, &capacity, output) > 0, let text = buffer {
        line(String(cString: text).trimmingCharacters(in: .newlines))
      }
      free(buffer)
      fclose(output)
    }
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + status & 0x7F
  }

  /// The path of a program, searched in PATH as a shell would. Nil when there is none.
  static func find(_ name: String, path: String) -> String? {
    if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
    return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
  }
}
