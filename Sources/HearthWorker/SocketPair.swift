import Foundation
import HearthCore

/// Two connected Unix stream sockets, or the two ends of a pipe; both closed on exec.
struct DescriptorPair {
  /// Stays in the gateway.
  let ours: Int32
  /// Goes to the other process, and is closed here once it has.
  let theirs: Int32

  static func sockets() throws -> DescriptorPair {
    var pair: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
      throw exhausted()
    }
    return DescriptorPair(ours: pair[0], theirs: pair[1])
  }

  /// A pipe that is read here.
  static func pipe() throws -> DescriptorPair {
    var pair: [Int32] = [-1, -1]
    guard Glibc.pipe(&pair) == 0 else { throw exhausted() }
    for descriptor in pair { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    return DescriptorPair(ours: pair[0], theirs: pair[1])
  }

  private static func exhausted() -> HearthError {
    HearthError(
      .internalError, "The gateway has no descriptor left for a worker.",
      hint: "Raise the limit on open files (ulimit -n).", cause: String(cString: strerror(errno)))
  }
}
