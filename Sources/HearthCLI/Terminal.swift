import Foundation
import HearthCore

/// What goes to the terminal: results to standard output, everything else to standard error.
enum Terminal {
  static var isInteractive: Bool { isatty(STDERR_FILENO) == 1 }

  static func complain(_ error: HearthError) {
    note("error: \(error.message)" + (error.hint.map { " \($0)" } ?? ""))
  }

  static func note(_ text: String) {
    clearStatus()
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }

  /// A line that the next one replaces; on a terminal only.
  static func status(_ text: String) {
    guard isInteractive else { return }
    FileHandle.standardError.write(Data("\r\u{1B}[K\(text.prefix(100))".utf8))
  }

  static func clearStatus() {
    guard isInteractive else { return }
    FileHandle.standardError.write(Data("\r\u{1B}[K".utf8))
  }

  /// A bar for what moves bytes.
  static func progress(_ label: String, _ moved: Int64, _ total: Int64) {
    guard total > 0 else { return status("\(label) \(ByteSize(bytes: moved).rounded)") }
    let filled = Int(moved * 24 / total)
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: max(0, 24 - filled))
    status("\(label) \(bar) \(ByteSize(bytes: moved).rounded) of \(ByteSize(bytes: total).rounded)")
  }

  /// Columns aligned by their widest cell, the first row in capitals as the heading.
  static func table(_ rows: [[String]]) {
    guard let columns = rows.first?.count else { return }
    let widths = (0..<columns).map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
      print(cells.joined(separator: "  ").trimmingCharacters(in: .whitespaces))
    }
  }
}
