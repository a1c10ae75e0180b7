/// How a function's workers are started, kept and stopped, and how long its requests may take.
///
/// `PolicyKnob.all` gives each property its name, unit and meaning; defaults and their sources are in
/// docs/configuration.md.
public struct FunctionPolicy: Hashable, Sendable {
  /// For how long a worker that serves nothing is kept.
  public enum KeepAlive: Hashable, Sendable {
    case fixed(Duration)
    /// Learned from the function's idle times: kept until the next request is likely to have come, or stopped and
    /// started again before it (Shahrad et al., "Serverless in the Wild", ATC 2020).
    case adaptive
    /// The fixed time that would have cost least over the last idle times, a cold start at `coldStartCost`.
    case cost
    /// Kept, stopped and started again as costs least by a forecast of the next request, learned from the idle times.
    case learned
    case forever
  }

  public var workersMin = 0
  public var workersMax = 100
  /// Workers started with a deploy; nil: as many as `workersMin`.
  public var workersInitial: Int?
  public var bufferWorkers = 0
  public var concurrencyMax = 1
  /// Requests per worker that the scaler aims at; nil: `concurrencyMax`.
  public var targetInFlight: Double?
  public var queueLengthMax = 100
  public var window = Duration.seconds(60)
  public var tick = Duration.seconds(2)
  public var panicWindow = Duration.seconds(6)
  /// 2: panic when the panic window asks for twice the workers there are.
  public var panicThreshold = 2.0
  public var upscaleStabilization = Duration.zero
  public var downscaleStabilization = Duration.seconds(300)
  public var upscaleFactorMax = 10.0
  public var downscaleFactorMax = 0.75
  public var upscaleTolerance = 0.05
  public var downscaleTolerance = 0.05
  public var activationScale = 1
  public var keepAlive = KeepAlive.fixed(.seconds(300))
  /// How long a worker may be kept idle to spare one cold start, for the learning kinds of `keepAlive`.
  public var coldStartCost = Duration.seconds(1_200)
  public var warmWindows: [WarmWindow] = []
  /// How long a worker or model holds its memory at least once it is loaded, while others wait for it; nil: as long as
  /// two loads take, unless nobody has asked for it for a quarter of one.
  public var residencyMin: Duration?
  /// How long a function or model without a worker waits for memory before those in use must make room.
  public var modelWaitMax = Duration.seconds(30)
  public var coldStartTimeout = Duration.seconds(1200)
  public var loadStallTimeout = Duration.seconds(300)
  public var firstByteTimeout = Duration.seconds(300)
  public var idleTimeout = Duration.seconds(60)
  /// Nil: no limit on the whole request.
  public var requestTimeout: Duration?
  public var drainTimeout = Duration.seconds(60)

  /// 10,000: what a window remembers is one number for each of its ticks.
  private static let ticksPerWindowMax = 10_000

  public init() {}

  /// The requests per worker that the scaler aims at.
  public var inFlightTarget: Double { targetInFlight ?? Double(concurrencyMax) }

  /// Checks what no single knob can: the bounds against each other.
  public func validate() throws {
    try check(
      workersMin <= workersMax, "min-workers (\(workersMin)) is above max-workers (\(workersMax)).",
      hint: "Raise max-workers or lower min-workers.")
    try check(
      workersInitial ?? workersMin <= workersMax,
      "initial-workers (\(workersInitial ?? 0)) is above max-workers (\(workersMax)).",
      hint: "Raise max-workers or lower initial-workers.")
    try check(
      panicWindow <= window, "panic-window (\(panicWindow.text)) is longer than window (\(window.text)).",
      hint: "The panic window is the short one.")
    try check(
      tick <= panicWindow, "tick (\(tick.text)) is longer than panic-window (\(panicWindow.text)).",
      hint: "A window needs at least one tick.")
    try check(
      window <= tick * FunctionPolicy.ticksPerWindowMax,
      "window (\(window.text)) is longer than \(FunctionPolicy.ticksPerWindowMax) ticks (\(tick.text)).",
      hint: "Raise tick or lower window.")
    try check(
      residencyMin ?? .zero <= modelWaitMax,
      "min-residency (\((residencyMin ?? .zero).text)) is longer than max-model-wait (\(modelWaitMax.text)).",
      hint: "Nobody waits longer than max-model-wait for what min-residency keeps.")
    try check(
      inFlightTarget <= Double(concurrencyMax),
      "target-in-flight (\(inFlightTarget)) is above max-concurrency (\(concurrencyMax)).",
      hint: "A worker never has more requests than max-concurrency.")
  }

  /// The defaults of a function of many models: each has one worker, which is kept until its memory is needed.
  public mutating func keepModels() {
    workersMax = 1
    keepAlive = .forever
  }

  /// Checks what makes no sense for a function of many models, where each knob is each model's.
  public func validateForModels() throws {
    try check(
      workersMin == 0 && (workersInitial ?? 0) == 0 && warmWindows.isEmpty && bufferWorkers == 0,
      "a function of many models cannot keep a worker of each.",
      hint: "Pin the models that are to be there always, and leave min-workers and the like out.")
  }

  private func check(_ holds: Bool, _ message: String, hint: String) throws {
    if !holds { throw HearthError(.policyInvalid, message, hint: hint) }
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
