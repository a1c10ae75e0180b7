import Foundation

/// Reads the end of a log file, and then what is appended to it, across rotations.
struct LogTail: Sendable {
  /// 8 MiB: how far back the last lines are looked for.
  private static let reachMax = 8 << 20

  private let path: String
  private var offset: UInt64 = 0
  private var inode: UInt64 = 0

  init(path: String) { self.path = path }

  /// The last lines of the file; reading goes on behind them.
  mutating func last(lines: Int) -> Data {
    guard let file = FileHandle(forReadingAtPath: path) else { return Data() }
    defer { try? file.close() }
    let size = (try? file.seekToEnd()) ?? 0
    offset = size
    inode = currentInode()
    guard lines > 0 else { return Data() }
    try? file.seek(toOffset: size > UInt64(LogTail.reachMax) ? size - UInt64(LogTail.reachMax) : 0)
    let data = (try? file.readToEnd()) ?? Data()
    var start = data.endIndex
    var remaining = lines + 1
    while start > data.startIndex {
      let previous = data.index(before: start)
      if data[previous] == UInt8(ascii: "\n") {
        remaining -= 1
        if remaining == 0 { break }
      }
      start = previous
    }
    return data[start...]
  }

  /// What was appended since the last call.
  mutating func next() -> Data {
    let current = currentInode()
    if current != inode {
      inode = current
      offset = 0
    }
    guard let file = FileHandle(forReadingAtPath: path) else { return Data() }
    defer { try? file.close() }
    try? file.seek(toOffset: offset)
    let data = (try? file.readToEnd()) ?? Data()
    offset += UInt64(data.count)
    return data
  }

  private func currentInode() -> UInt64 {
    var status = stat()
    return stat(path, &status) == 0 ? UInt64(status.st_ino) : 0
  }
}
