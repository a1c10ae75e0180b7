/// One knob of a function's policy, by the name that `function.yaml`, the CLI and the admin API share.
public struct PolicyKnob: Sendable {
  /// Where in `function.yaml` a knob is written.
  public enum Section: String, Sendable {
    case scaling
    case timeouts
  }

  public let name: String
  public let section: Section
  public let unit: String
  public let meaning: String
  /// False where a change needs a new version, since running workers depend on it.
  public let isLive: Bool
  public let read: @Sendable (FunctionPolicy) -> String
  private let parse: @Sendable (String, inout FunctionPolicy) -> Bool

  /// Sets the knob from text. Throws `policy_invalid` when the text is not a value of it.
  public func write(_ text: String, to policy: inout FunctionPolicy) throws {
    guard parse(text, &policy) else {
      throw HearthError(
        .policyInvalid, "'\(text.printable(limit: 80))' is not a value of \(name).", hint: "Expected \(unit).")
    }
  }

  public static func named(_ name: String) -> PolicyKnob? { all.first { $0.name == name } }

  public static let all: [PolicyKnob] = [
    count("min-workers", \.workersMin, 0...10_000, "workers kept even when nobody calls; 0 allows scale to zero"),
    count("max-workers", \.workersMax, 1...10_000, "most workers at once"),
    count(
      "buffer-workers", \.bufferWorkers, 0...10_000, "idle workers kept above those in use while the function runs"),
    count(
      "max-concurrency", \.concurrencyMax, 1...1_000, "requests one worker takes at a time", isLive: false),
    count("max-queue-length", \.queueLengthMax, 0...1_000_000, "requests that may wait; the next gets 503"),
    count("max-upscale-factor", \.upscaleFactorMax, 2...1_000, "most growth of the pool in one decision"),
    keepAlive,
    duration(
      "cold-start-timeout", .timeouts, \.coldStartTimeout, "how long a request may wait for a worker"),
    duration(
      "load-stall-timeout", .timeouts, \.loadStallTimeout, "a load without progress for this long has failed"),
    duration(
      "first-byte-timeout", .timeouts, \.firstByteTimeout, "how long a worker may take until its response begins"),
    duration("idle-timeout", .timeouts, \.idleTimeout, "longest silence within a response"),
    requestTimeout,
    duration("drain-timeout", .timeouts, \.drainTimeout, "how long requests in flight may finish when a worker stops"),
  ]

  private static let keepAlive = PolicyKnob(
    name: "keep-alive", section: .scaling, unit: "a duration such as 5m, or 'forever'",
    meaning: "how long an idle worker is kept", isLive: true,
    read: { policy in
      switch policy.keepAlive {
      case .fixed(let duration): duration.text
      case .forever: "forever"
      }
    },
    parse: { text, policy in
      if text == "forever" {
        policy.keepAlive = .forever
      } else if let duration = Duration(hearth: text) {
        policy.keepAlive = .fixed(duration)
      } else {
        return false
      }
      return true
    })

  private static let requestTimeout = PolicyKnob(
    name: "request-timeout", section: .timeouts, unit: "a duration such as 30s, or 'none'",
    meaning: "longest time for a whole request once a worker has it", isLive: true,
    read: { $0.requestTimeout?.text ?? "none" },
    parse: { text, policy in
      if text == "none" {
        policy.requestTimeout = nil
      } else if let duration = Duration(hearth: text), duration > .zero {
        policy.requestTimeout = duration
      } else {
        return false
      }
      return true
    })

  private static func count(
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

  private static func duration(
    _ name: String, _ section: Section, _ path: any WritableKeyPath<FunctionPolicy, Duration> & Sendable,
    _ meaning: String
  ) -> PolicyKnob {
    PolicyKnob(
      name: name, section: section, unit: "a duration such as 30s or 5m", meaning: meaning, isLive: true,
      read: { $0[keyPath: path].text },
      parse: { text, policy in
        guard let value = Duration(hearth: text), value > .zero else { return false }
        policy[keyPath: path] = value
        return true
      })
  }
}
