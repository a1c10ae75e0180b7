import Foundation
import HearthCore

/// What a process and those it started take of the machine's memory.
enum ProcessMemory {
  /// 1,000: a tree of more processes is measured in part.
  private static let processesMax = 1_000

  /// The proportional set size (proc(5)): pages that several processes share count in parts. Nil when the process is
  /// gone.
  static func proportional(of pid: Int32) -> ByteSize? {
    guard let own = read(pid) else { return nil }
    var total = own
    var pending = children(of: pid)
    var seen = 0
    while let child = pending.popLast(), seen < processesMax {
      seen += 1
      total += read(child) ?? 0
      pending += children(of: child)
    }
    return ByteSize(bytes: total)
  }

  /// The same of the process alone.
  static func own(of pid: Int32) -> ByteSize? { read(pid).map { ByteSize(bytes: $0) } }

  /// The resident set of a process alone (proc(5), statm): read at once, however large it is, and pages that it shares
  /// count in full.
  static func resident(of pid: Int32) -> ByteSize? {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8),
      let pages = text.split(separator: " ").dropFirst().first.flatMap({ Int64($0) })
    else { return nil }
    return ByteSize(bytes: pages * Int64(sysconf(Int32(_SC_PAGESIZE))))
  }

  /// Whether a process holds no memory any more: it is gone, or on its way out past the point where the kernel takes
  /// its memory back. Its children are not looked at.
  static func isFree(_ pid: Int32) -> Bool {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8) else { return true }
    return text.hasPrefix("0 ")
  }

  /// How much more of a process alone is resident than counts as its own: what it shares with others.
  static func sharing(of pid: Int32) -> (own: ByteSize, sharing: ByteSize)? {
    guard let text = rollup(pid), let own = bytes("Pss:", in: text), let resident = bytes("Rss:", in: text) else {
      return nil
    }
    return (ByteSize(bytes: own), ByteSize(bytes: resident - own))
  }

  private static func read(_ pid: Int32) -> Int64? { rollup(pid).flatMap { bytes("Pss:", in: $0) } }

  private static func rollup(_ pid: Int32) -> String? {
    try? String(contentsOfFile: "/proc/\(pid)/smaps_rollup", encoding: .utf8)
  }

  private static func bytes(_ name: String, in text: String) -> Int64? {
    guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) }) else { return nil }
    // In KiB.
    return line.split(separator: " ").dropFirst().first.flatMap { Int64($0) }.map { $0 * 1_024 }
  }

  private static func children(of pid: Int32) -> [Int32] {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
    return tasks.flatMap { task -> [Int32] in
      let text = try? String(contentsOfFile: "/proc/\(pid)/task/\(task)/children", encoding: .utf8)
      return text?.split(separator: " ").compactMap { Int32($0) } ?? []
    }
  }
}
