import Foundation
import HearthCore
import NIOConcurrencyHelpers

/// A function's log file: one line a record, rotated by size.
///
/// A line reads `TIME WORKER REQUEST TEXT`, where TIME is UTC (RFC 3339) and a dash stands for no worker or request.
public final class FunctionLog: Sendable {
  /// 16 MiB a file: a day of a chatty function, quick to search.
  public static let sizeMax = 16 << 20
  /// Three files are kept in all.
  public static let filesMax = 3
  /// 16 KiB: longer lines are cut, so that one print cannot fill a file.
  public static let lineMax = 16 * 1024

  private struct State {
    var file: UnsafeMutablePointer<FILE>?
    var size = 0
  }

  public let path: String
  private let state = NIOLockedValueBox(UncheckedState())

  private final class UncheckedState: @unchecked Sendable {
    // Touched only under the box's lock.
    var state = State()
  }

  public init(path: String) { self.path = path }

  deinit { state.withLockedValue { if let file = $0.state.file { fclose(file) } } }

  /// Appends one line. Failures to write are dropped: a full disk must not stop the function.
  public func append(_ text: String, worker: WorkerID?, request: String = "") {
    let line =
      "\(FunctionLog.timestamp()) \(worker?.description ?? "-") \(request.isEmpty ? "-" : request) "
      + "\(text.utf8.count > FunctionLog.lineMax ? String(text.prefix(FunctionLog.lineMax)) + "…" : text)\n"
    state.withLockedValue { box in
      open(&box.state)
      guard let file = box.state.file else { return }
      fputs(line, file)
      fflush(file)
      box.state.size += line.utf8.count
      if box.state.size >= FunctionLog.sizeMax { rotate(&box.state) }
    }
  }

  private func open(_ state: inout State) {
    guard state.file == nil else { return }
    state.file = fopen(path, "ae")
    if let file = state.file {
      fseek(file, 0, SEEK_END)
      state.size = ftell(file)
    }
  }

  private func rotate(_ state: inout State) {
    if let file = state.file { fclose(file) }
    state.file = nil
    for index in stride(from: FunctionLog.filesMax - 2, through: 1, by: -1) {
      rename("\(path).\(index)", "\(path).\(index + 1)")
    }
    rename(path, "\(path).1")
  }

  private static func timestamp() -> String {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return TimeText.rfc3339(unixNanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec))
  }
}
