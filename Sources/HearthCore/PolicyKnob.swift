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
  let parse: @Sendable (String, inout FunctionPolicy) -> Bool

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
    initialWorkers,
    count(
      "buffer-workers", \.bufferWorkers, 0...10_000, "idle workers kept above those in use while the function runs"),
    count("activation-scale", \.activationScale, 1...10_000, "workers started when a request comes and none runs"),
    count(
      "max-concurrency", \.concurrencyMax, 1...1_000, "requests one worker takes at a time", isLive: false),
    targetInFlight,
    count("max-queue-length", \.queueLengthMax, 0...1_000_000, "requests that may wait; the next gets 503"),
    duration("window", .scaling, \.window, "over how long the scaler averages the requests in flight"),
    duration("tick", .scaling, \.tick, "how often the scaler decides", least: .milliseconds(100)),
    duration("panic-window", .scaling, \.panicWindow, "over how long it averages to notice a burst"),
    percentage(
      "panic-threshold", \.panicThreshold, 100...100_000,
      "a burst that asks for this much of the workers there are is a panic; nothing is scaled down while it lasts"),
    duration(
      "upscale-stabilization", .scaling, \.upscaleStabilization,
      "how long more workers must be wanted before they start",
      least: .zero),
    duration(
      "downscale-stabilization", .scaling, \.downscaleStabilization,
      "how long fewer workers must be wanted before surplus ones stop", least: .zero),
    factor("max-upscale-factor", \.upscaleFactorMax, 1.01...1_000, "most growth of the pool in one decision"),
    factor("max-downscale-factor", \.downscaleFactorMax, 0...0.99, "least that one decision leaves of the pool"),
    factor("upscale-tolerance", \.upscaleTolerance, 0...1, "growth of less than this share of the pool is left alone"),
    factor(
      "downscale-tolerance", \.downscaleTolerance, 0...1, "a cut of less than this share of the pool is left alone"),
    keepAlive,
    duration(
      "cold-start-cost", .scaling, \.coldStartCost,
      "how long a worker may be kept idle to spare one cold start, where keep-alive learns"),
    warmWindows,
    minResidency,
    duration(
      "max-model-wait", .scaling, \.modelWaitMax,
      "how long a request waits for memory before workers and models in use must make room"),
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
}
