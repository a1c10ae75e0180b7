import Foundation
import HearthCore

/// Azure Functions 2019: Shahrad et al., "Serverless in the Wild", ATC 2020; github.com/Azure/AzurePublicDataset.
extension TraceReader {
  /// The columns that name things, as opposed to minutes.
  private static let names: Set = ["HashOwner", "HashApp", "HashFunction", "Trigger"]

  mutating func readAzureFunctions(
    header: [String], _ rows: inout CSVRows, folder: String, file: String
  ) throws {
    let name = header.firstIndex(of: "HashFunction")!
    let app = header.firstIndex(of: "HashApp")
    let minutes = header.indices.filter { !TraceReader.names.contains(header[$0]) }
    let averages = AzureColumn(
      folder,
      TraceReader.siblings(of: file, "invocations_per_function_md", "function_durations_percentiles")
        + ["durations.csv"], key: ["HashFunction"], value: "Average")
    let memory = AzureColumn(
      folder, TraceReader.siblings(of: file, "invocations_per_function_md", "app_memory_percentiles") + ["memory.csv"],
      key: ["HashFunction", "HashApp"], value: "AverageAllocatedMb")
    setLength(.seconds(60 * minutes.count))
    while let row = rows.next() {
      guard row.fields.count == header.count else {
        try reject(line: row.line, "it has \(row.fields.count) columns, the first line \(header.count)")
        continue
      }
      let id = row.fields[name]
      let megabytes = memory[id] ?? app.flatMap { memory[row.fields[$0]] }
      let bytes = megabytes.map { ByteSize(bytes: Int64($0 * 1_048_576)) }
      let index = function(named: id, memory: bytes)
      let duration = averages[id].map { Duration.seconds($0 / 1_000) } ?? options.duration
      for (minute, column) in minutes.enumerated() {
        guard let count = Int(row.fields[column]), (0...10_000_000).contains(count) else {
          try reject(line: row.line, "'\(row.fields[column].printable(limit: 40))' is not a number of requests")
          continue
        }
        for number in 0..<count {
          let seconds = Double(minute) * 60 + (Double(number) + 0.5) * 60 / Double(count)
          let at = HearthInstant(nanoseconds: Int64(seconds * 1e9))
          add(Trace.Arrival(at: at, function: index, duration: duration))
        }
      }
    }
  }

  private static func siblings(of file: String, _ part: String, _ other: String) -> [String] {
    file.contains(part) ? [file.replacingOccurrences(of: part, with: other)] : []
  }
}

/// One number for each function, or application, of a file that lies beside the trace.
private struct AzureColumn {
  private var values: [String: Double] = [:]

  /// Takes the first of the files that is there. Rows without a number are left out.
  init(_ folder: String, _ files: [String], key: [String], value: String) {
    let data = files.lazy.compactMap { FileManager.default.contents(atPath: "\(folder.isEmpty ? "." : folder)/\($0)") }
    guard let data = data.first else { return }
    var rows = CSVRows(data)
    guard let header = rows.next()?.fields, let valueIndex = header.firstIndex(of: value),
      let keyIndex = key.lazy.compactMap({ header.firstIndex(of: $0) }).first
    else { return }
    while let row = rows.next() {
      guard row.fields.count > max(keyIndex, valueIndex), let number = Double(row.fields[valueIndex]),
        (0...1e12).contains(number)
      else {
        continue
      }
      values[row.fields[keyIndex]] = number
    }
  }

  subscript(key: String) -> Double? { values[key] }
}
