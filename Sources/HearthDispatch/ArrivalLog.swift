import Foundation
import HearthCore
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// Requests that have ended and are not written yet. Filled on the request's path, so it only appends.
struct ArrivalBuffer: Sendable {
  /// 65,536: two seconds of 30,000 requests each; what comes beyond is counted and left out.
  private static let recordsMax = 65_536

  private(set) var records: [ArrivalRecord] = []
  private(set) var dropped = 0

  mutating func append(_ record: ArrivalRecord) {
    guard records.count < ArrivalBuffer.recordsMax else {
      dropped += 1
      return
    }
    records.append(record)
  }

  mutating func take() -> (records: [ArrivalRecord], dropped: Int) {
    defer {
      // Room for as many as there were: the next ones come at about that rate.
      let count = records.count
      records = []
      records.reserveCapacity(count)
      dropped = 0
    }
    return (records, dropped)
  }
}

/// The arrivals of all functions on disk: for each a file of the newest and one of those before, bounded, written every
/// two seconds by a thread of their own. What a crash costs is the last two seconds.
public final class ArrivalLog: Sendable {
  /// 32 MiB a file: a million requests.
  static let fileMax = 32 << 20
  private static let interval = TimeAmount.seconds(2)

  private let folder: String
  private let clock: any HearthClock
  private let logger: Logger
  private let endpoints: @Sendable () -> [FunctionEndpoint]
  /// Held while files are written or read.
  private let writing = NIOLock()

  /// - Parameter folder: where the files lie; made if it is not there.
  public init(folder: String, clock: any HearthClock, timers: any EventLoop, dispatcher: Dispatcher, logger: Logger)
    throws
  {
    self.folder = folder
    self.logger = logger
    self.clock = clock
    endpoints = { [weak dispatcher] in dispatcher?.recordingEndpoints() ?? [] }
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw HearthError(.configurationInvalid, "The folder '\(folder)' cannot be created.")
    }
    timers.scheduleRepeatedTask(initialDelay: ArrivalLog.interval, delay: ArrivalLog.interval) { [weak self] task in
      guard let self else { return task.cancel() }
      NIOThreadPool.singleton.submit { [weak self] _ in self?.flush() }
    }
  }

  /// Writes what has ended since.
  public func flush() {
    writing.withLock {
      let offset = clock.wallOffset.nanoseconds
      for endpoint in endpoints() {
        let (records, dropped) = endpoint.state.withLockedValue { $0.arrivals.take() }
        if dropped > 0 {
          logger.warning(
            "requests are missing from the arrival log",
            metadata: ["function": "\(endpoint.version.name)", "count": "\(dropped)"])
        }
        if !records.isEmpty { append(records, offset, to: path(endpoint.version.name)) }
      }
    }
  }

  private func append(_ records: [ArrivalRecord], _ offset: Int64, to path: String) {
    guard let file = fopen(path, "ae") else { return }
    fseek(file, 0, SEEK_END)
    // A crash may have left half a record, which would garble all that follow.
    let found = ftell(file)
    let size = found - found % ArrivalRecord.size
    if size != found { ftruncate(fileno(file), size) }
    var bytes = ByteBuffer()
    bytes.reserveCapacity(records.count * ArrivalRecord.size)
    for record in records { record.write(to: &bytes, offset: offset) }
    let written = bytes.withUnsafeReadableBytes { fwrite($0.baseAddress, 1, $0.count, file) }
    // Nor must a full disk.
    let isWhole = written == bytes.readableBytes && fflush(file) == 0
    if !isWhole { ftruncate(fileno(file), size) }
    fclose(file)
    if size + written >= ArrivalLog.fileMax { rename(path, "\(path).1") }
  }

  /// The recorded requests of a function, the oldest first.
  public func reader(_ name: FunctionName) -> ArrivalReader {
    flush()
    return writing.withLock { ArrivalReader(name, paths(name).compactMap { fopen($0, "re") }) }
  }

  /// How long the function was without requests each time, the newest last: what a keep-alive learns from. Reads the
  /// newest 200,000 requests at most.
  public func rests(_ name: FunctionName) -> [Duration] {
    flush()
    var records = writing.withLock { paths(name).flatMap { ArrivalReader.last(100_000, of: $0) } }
    records.sort { $0.arrival < $1.arrival }
    var rests: [Duration] = []
    var busyUntil: Int64?
    for record in records {
      if let until = busyUntil, record.arrival > until { rests.append(.nanoseconds(record.arrival - until)) }
      busyUntil = max(busyUntil ?? 0, record.arrival + record.waited + record.duration)
    }
    return rests
  }

  /// Forgets a function's requests.
  public func remove(_ name: FunctionName) {
    writing.withLock { for path in paths(name) { unlink(path) } }
  }

  private func path(_ name: FunctionName) -> String { "\(folder)/\(name)" }

  /// Both files of a function, the older first.
  private func paths(_ name: FunctionName) -> [String] { ["\(path(name)).1", path(name)] }
}
