import Foundation
import HearthCore
import NIOCore

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

  func write(to bytes: inout ByteBuffer, offset: Int64) {
    bytes.writeInteger(arrival + offset, endianness: .little)
    bytes.writeInteger(waited, endianness: .little)
    bytes.writeInteger(duration, endianness: .little)
    bytes.writeInteger(Int64(wasCold ? 1 : 0), endianness: .little)
  }

  /// Whether it can have been written here: times after 1970, and less than a century.
  var isPlausible: Bool {
    let century: ClosedRange<Int64> = 0...3_000_000_000_000_000_000
    return century.contains(arrival) && century.contains(waited) && century.contains(duration)
  }

  /// Nil when there are not enough bytes.
  static func read(_ bytes: inout ByteBuffer) -> ArrivalRecord? {
    guard bytes.readableBytes >= size else { return nil }
    func next() -> Int64 { bytes.readInteger(endianness: .little) ?? 0 }
    return ArrivalRecord(arrival: next(), waited: next(), duration: next(), wasCold: next() == 1)
  }
}

/// Reads recorded requests as CSV, part by part: `timestamp,function,duration,waited,start`. Times are in seconds. Its
/// files stay as they were when it was made, whatever is written meanwhile.
public final class ArrivalReader: @unchecked Sendable {
  // Used by one reader at a time; unchecked because files are not Sendable.

  /// 4,096: a part is some 300 KB of text.
  private static let partRecords = 4_096

  private let name: FunctionName
  private var files: [UnsafeMutablePointer<FILE>]
  private var isBegun = false

  init(_ name: FunctionName, _ files: [UnsafeMutablePointer<FILE>]) {
    self.name = name
    self.files = files
  }

  deinit { for file in files { fclose(file) } }

  /// The next part, or nil at the end. Blocks while it reads.
  public func next() -> String? {
    guard isBegun else {
      isBegun = true
      return "timestamp,function,duration,waited,start\n"
    }
    while let file = files.first {
      let records = ArrivalReader.read(file, ArrivalReader.partRecords)
      if !records.isEmpty { return records.map(row).joined() }
      fclose(file)
      files.removeFirst()
    }
    return nil
  }

  private func row(_ record: ArrivalRecord) -> String {
    let times = [record.duration, record.waited].map(TimeText.seconds).joined(separator: ",")
    return "\(TimeText.seconds(nanoseconds: record.arrival)),\(name),\(times),\(record.wasCold ? "cold" : "hot")\n"
  }

  private static func read(_ file: UnsafeMutablePointer<FILE>, _ count: Int) -> [ArrivalRecord] {
    var block = [UInt8](repeating: 0, count: count * ArrivalRecord.size)
    let read = fread(&block, ArrivalRecord.size, count, file)
    var bytes = ByteBuffer(bytes: block[..<(read * ArrivalRecord.size)])
    var records: [ArrivalRecord] = []
    while let record = ArrivalRecord.read(&bytes) {
      if record.isPlausible { records.append(record) }
    }
    return records
  }

  /// The last records of a file.
  static func last(_ count: Int, of path: String) -> [ArrivalRecord] {
    guard let file = fopen(path, "re") else { return [] }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    let records = ftell(file) / ArrivalRecord.size
    fseek(file, max(0, records - count) * ArrivalRecord.size, SEEK_SET)
    return read(file, count)
  }
}
