/// How a function's workers are started, kept and stopped, and how long its requests may take.
///
/// `PolicyKnob.all` gives each property its name, unit and meaning; defaults and their sources are in
/// docs/configuration.md.
public struct FunctionPolicy: Hashable, Sendable {
  /// For how long a worker that serves nothing is kept.
  public enum KeepAlive: Hashable, Sendable {
    case fixed(Duration)
    case forever
  }

  public var workersMin = 0
  public var workersMax = 100
  public var bufferWorkers = 0
  public var concurrencyMax = 1
  public var queueLengthMax = 100
  public var upscaleFactorMax = 10
  public var keepAlive = KeepAlive.fixed(.seconds(300))
  public var coldStartTimeout = Duration.seconds(1200)
  public var loadStallTimeout = Duration.seconds(300)
  public var firstByteTimeout = Duration.seconds(300)
  public var idleTimeout = Duration.seconds(60)
  /// Nil: no limit on the whole request.
  public var requestTimeout: Duration?
  public var drainTimeout = Duration.seconds(60)

  public init() {}

  /// Checks what no single knob can: the bounds against each other.
  public func validate() throws {
    guard workersMin <= workersMax else {
      throw HearthError(
        .policyInvalid, "min-workers (\(workersMin)) is above max-workers (\(workersMax)).",
        hint: "Raise max-workers or lower min-workers.")
    }
  }
}

extension FunctionPolicy {
  /// The policy with live values laid over it, in the order of `PolicyKnob.all`.
  public func overridden(by values: [String: String]) throws -> FunctionPolicy {
    var policy = self
    for knob in PolicyKnob.all {
      if let value = values[knob.name] { try knob.write(value, to: &policy) }
    }
    try policy.validate()
    return policy
  }
}
