import Foundation
import HearthCore
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// One request that a worker served, as `hearth trace export` tells it.
struct ArrivalRecord: Sendable {
  static let size = 32

  /// When it arrived, in nanoseconds of the gateway's clock; on disk in nanoseconds since 1970.
  var arrival: Int64
  /// How long it waited for a worker, and how long that was at it, in nanoseconds.
  var waited: Int64
  var duration: Int64
  /// Whether it waited for a start.
  var wasCold: Bool
}

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
  private let endpoints: @Sendable () -> [FunctionEndpoint]
  /// Held while files are written or read.
  private let writing = NIOLock()

  /// - Parameter folder: where the files lie; made if it is not there.
  public init(folder: String, clock: any HearthClock, timers: any EventLoop, dispatcher: Dispatcher) throws {
    self.folder = folder
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
        let (records, _) = endpoint.state.withLockedValue { $0.arrivals.take() }
        if !records.isEmpty { append(records, offset, to: path(endpoint.version.name)) }
      }
    }
  }

  private func append(_ records: [ArrivalRecord], _ offset: Int64, to path: String) {
    guard let file = fopen(path, "ae") else { return }
    var bytes = ByteBuffer()
    bytes.reserveCapacity(records.count * ArrivalRecord.size)
    for record in records {
      bytes.writeInteger(record.arrival + offset, endianness: .little)
      bytes.writeInteger(record.waited, endianness: .little)
      bytes.writeInteger(record.duration, endianness: .little)
      bytes.writeInteger(Int64(record.wasCold ? 1 : 0), endianness: .little)
    }
    _ = bytes.withUnsafeReadableBytes { fwrite($0.baseAddress, 1, $0.count, file) }
    fseek(file, 0, SEEK_END)
    let size = ftell(file)
    fclose(file)
    if size >= ArrivalLog.fileMax { rename(path, "\(path).1") }
  }

  /// The recorded requests of a function as CSV, the oldest first: `timestamp,function,duration,waited,start`. Times are
  /// in seconds. Blocks while it reads.
  ///
  /// - Parameter write: gets the text in parts; false ends it.
  public func export(_ name: FunctionName, write: (String) -> Bool) {
    flush()
    guard write("timestamp,function,duration,waited,start\n") else { return }
    for path in ["\(path(name)).1", path(name)] {
      guard let file = writing.withLock({ fopen(path, "re") }) else { continue }
      defer { fclose(file) }
      var block = [UInt8](repeating: 0, count: 4_096 * ArrivalRecord.size)
      while true {
        let count = fread(&block, ArrivalRecord.size, 4_096, file)
        guard count > 0 else { break }
        guard write(ArrivalLog.rows(ByteBuffer(bytes: block[..<(count * ArrivalRecord.size)]), name)) else { return }
      }
    }
  }

  private static func rows(_ bytes: ByteBuffer, _ name: FunctionName) -> String {
    var bytes = bytes
    var text = ""
    func next() -> Int64 { bytes.readInteger(endianness: .little) ?? 0 }
    while bytes.readableBytes >= ArrivalRecord.size {
      let (arrival, waited, duration, cold) = (next(), next(), next(), next())
      text += "\(seconds(arrival)),\(name),\(seconds(duration)),\(seconds(waited)),\(cold == 1 ? "cold" : "hot")\n"
    }
    return text
  }

  /// Nanoseconds as seconds with six decimals.
  private static func seconds(_ nanoseconds: Int64) -> String {
    let micros = max(0, nanoseconds) / 1_000
    return "\(micros / 1_000_000).\(String(1_000_000 + micros % 1_000_000).dropFirst())"
  }

  /// Forgets a function's requests.
  public func remove(_ name: FunctionName) {
    writing.withLock {
      unlink(path(name))
      unlink("\(path(name)).1")
    }
  }

  private func path(_ name: FunctionName) -> String { "\(folder)/\(name)" }
}
