/// Counters and gauges in the text format that Prometheus reads (Prometheus, "Exposition formats", version 0.0.4).
struct MetricsText {
  enum Kind: String {
    case counter
    case gauge
  }

  /// One number, and what it is of.
  struct Sample {
    let labels: KeyValuePairs<String, String>
    let value: Double
  }

  static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  private(set) var text = ""

  /// Adds one metric with all its samples; nothing where there are none.
  mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
    guard !samples.isEmpty else { return }
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    for sample in samples {
      let labels = sample.labels.map { "\($0)=\"\(MetricsText.escaped($1))\"" }.joined(separator: ",")
      text += "\(name){\(labels)} \(MetricsText.number(sample.value))\n"
    }
  }

  /// Whole numbers without a fraction, as they are easier to read.
  private static func number(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }

  private static func escaped(_ text: String) -> String {
    text.reduce(into: "") { result, character in
      switch character {
      case "\\": result += "\\\\"
      case "\"": result += "\\\""
      case "\n": result += "\\n"
      default: result.append(character)
      }
    }
  }
}
