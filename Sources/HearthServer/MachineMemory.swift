import Foundation
import HearthCore

/// How much memory there is for this gateway and its workers.
enum MachineMemory {
  /// The machine's memory, or the limit of the control group if that is less (cgroups(7), version 1 or 2).
  static var total: ByteSize {
    let pages = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"].compactMap { path in
      (try? String(contentsOfFile: path, encoding: .utf8))
        .flatMap { Int64($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
    return ByteSize(bytes: limits.filter { $0 > 0 }.reduce(pages, min))
  }
}
