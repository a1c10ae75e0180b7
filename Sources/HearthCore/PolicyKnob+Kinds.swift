/// How each kind of knob is written and read.
extension PolicyKnob {
  static let keepAlive = PolicyKnob(
    name: "keep-alive", section: .scaling, unit: "a duration such as 5m, 'learned', 'adaptive', 'cost' or 'forever'",
    meaning: "how long an idle worker is kept", isLive: true,
    read: { policy in
      switch policy.keepAlive {
      case .fixed(let duration): duration.text
      case .adaptive: "adaptive"
      case .cost: "cost"
      case .learned: "learned"
      case .forever: "forever"
      }
    },
    parse: { text, policy in
      switch text {
      case "adaptive": policy.keepAlive = .adaptive
      case "cost": policy.keepAlive = .cost
      case "learned": policy.keepAlive = .learned
      case "forever": policy.keepAlive = .forever
      default:
        guard let duration = Duration(hearth: text) else { return false }
        policy.keepAlive = .fixed(duration)
      }
      return true
    })

  static let requestTimeout = optional(
    "request-timeout", .timeouts, \.requestTimeout, none: "none", unit: "a duration such as 30s",
    "longest time for a whole request once a worker has it", write: \.text
  ) { Duration(hearth: $0).flatMap { $0 > .zero ? $0 : nil } }

  static let initialWorkers = optional(
    "initial-workers", .scaling, \.workersInitial, none: "min-workers", unit: "a whole number from 0 to 10000",
    "workers started with a deploy", write: \.description
  ) { Int($0).flatMap { (0...10_000).contains($0) ? $0 : nil } }

  static let minResidency = optional(
    "min-residency", .scaling, \.residencyMin, none: "auto", unit: "a duration such as 10s",
    "how long a worker or model keeps its memory at least while others wait for it", write: \.text
  ) { Duration(hearth: $0) }

  static let targetInFlight = optional(
    "target-in-flight", .scaling, \.targetInFlight, none: "max-concurrency", unit: "a number from 0.01 to 1000",
    "requests per worker that the scaler aims at", write: \.plainText
  ) { Double($0).flatMap { (0.01...1_000).contains($0) ? $0 : nil } }

  /// The one knob that `function.yaml` writes as a list.
  public static let warmWindowsName = "warm-windows"

  static let warmWindows = PolicyKnob(
    name: warmWindowsName, section: .scaling, unit: "'0 8 * * mon-fri for 10h workers 2', more after ';', or 'none'",
    meaning: "times (cron, UTC) at which workers are kept, with or without requests", isLive: true,
    read: { $0.warmWindows.isEmpty ? "none" : $0.warmWindows.map(\.description).joined(separator: "; ") },
    parse: { text, policy in
      let parts = text == "none" || text.isEmpty ? [] : text.split(separator: ";", omittingEmptySubsequences: false)
      let windows = parts.compactMap { WarmWindow($0) }
      // 32: more is a mistake, and each is looked at whenever one begins or ends.
      guard windows.count == parts.count, windows.count <= 32 else { return false }
      policy.warmWindows = windows
      return true
    })

  static func count(
    _ name: String, _ path: any WritableKeyPath<FunctionPolicy, Int> & Sendable, _ range: ClosedRange<Int>,
    _ meaning: String, isLive: Bool = true
  ) -> PolicyKnob {
    PolicyKnob(
      name: name, section: .scaling, unit: "a whole number from \(range.lowerBound) to \(range.upperBound)",
      meaning: meaning, isLive: isLive, read: { String($0[keyPath: path]) },
      parse: { text, policy in
        guard let value = Int(text), range.contains(value) else { return false }
        policy[keyPath: path] = value
        return true
      })
  }

  static func factor(
    _ name: String, _ path: any WritableKeyPath<FunctionPolicy, Double> & Sendable, _ range: ClosedRange<Double>,
    _ meaning: String
  ) -> PolicyKnob {
    number(name, path, range, meaning, kind: "a number", suffix: "", scale: 1)
  }

  /// A share written in per cent and kept as a fraction of one.
  static func percentage(
    _ name: String, _ path: any WritableKeyPath<FunctionPolicy, Double> & Sendable, _ range: ClosedRange<Double>,
    _ meaning: String
  ) -> PolicyKnob {
    number(name, path, range, meaning, kind: "a percentage", suffix: "%", scale: 100)
  }

  /// A number written with a suffix, `scale` times what is kept.
  private static func number(
    _ name: String, _ path: any WritableKeyPath<FunctionPolicy, Double> & Sendable, _ range: ClosedRange<Double>,
    _ meaning: String, kind: String, suffix: String, scale: Double
  ) -> PolicyKnob {
    PolicyKnob(
      name: name, section: .scaling,
      unit: "\(kind) from \(range.lowerBound.plainText)\(suffix) to \(range.upperBound.plainText)\(suffix)",
      meaning: meaning, isLive: true, read: { "\(($0[keyPath: path] * scale).plainText)\(suffix)" },
      parse: { text, policy in
        guard text.hasSuffix(suffix), let value = Double(text.dropLast(suffix.count)), range.contains(value) else {
          return false
        }
        policy[keyPath: path] = value / scale
        return true
      })
  }

  static func duration(
    _ name: String, _ section: Section, _ path: any WritableKeyPath<FunctionPolicy, Duration> & Sendable,
    _ meaning: String, least: Duration = .microseconds(1)
  ) -> PolicyKnob {
    PolicyKnob(
      name: name, section: section,
      unit: "a duration such as 30s or 5m" + (least >= .milliseconds(1) ? ", \(least.text) or more" : ""),
      meaning: meaning, isLive: true, read: { $0[keyPath: path].text },
      parse: { text, policy in
        guard let value = Duration(hearth: text), value >= least else { return false }
        policy[keyPath: path] = value
        return true
      })
  }

  /// A knob that may be left unset, which `none` says.
  private static func optional<Value>(
    _ name: String, _ section: Section, _ path: any WritableKeyPath<FunctionPolicy, Value?> & Sendable, none: String,
    unit: String, _ meaning: String, write: @escaping @Sendable (Value) -> String,
    read: @escaping @Sendable (String) -> Value?
  ) -> PolicyKnob {
    PolicyKnob(
      name: name, section: section, unit: "\(unit), or '\(none)'", meaning: meaning, isLive: true,
      read: { $0[keyPath: path].map(write) ?? none },
      parse: { text, policy in
        guard text != none else {
          policy[keyPath: path] = nil
          return true
        }
        guard let value = read(text) else { return false }
        policy[keyPath: path] = value
        return true
      })
  }
}

extension Double {
  /// The number without a fraction of zero: `10`, `0.75`.
  fileprivate var plainText: String {
    // To nine decimals: what was written in per cent must read back as it was.
    let value = (self * 1e9).rounded() / 1e9
    return value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }
}
