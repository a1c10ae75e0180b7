import ArgumentParser
import Foundation
import HearthAdmin
import HearthCore

struct Policy: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show or change a function's policy, live.",
    discussion: """
      Without options prints each knob, its value, where that comes from (default, function.yaml or live) and what it \
      takes. Changes take effect at once and survive a restart; '--reset KNOB' goes back to function.yaml or the \
      default.
      """)

  @Argument(help: "The function.")
  var name: String

  @OptionGroup(title: "Scaling") var scaling: ScalingKnobs
  @OptionGroup(title: "Time-outs") var timeouts: TimeoutKnobs
  @Option(help: "A knob to set back; may be repeated.") var reset: [String] = []

  @OptionGroup var gateway: GatewayOptions

  private var changes: [String: String?] {
    var changes: [String: String?] = [:]
    for (knob, value) in scaling.values + timeouts.values { if let value { changes[knob] = .some(value) } }
    for knob in reset { changes[knob] = .some(nil) }
    return changes
  }

  func run() throws {
    let client = try gateway.client()
    let path = "/v1/functions/\(try FunctionName(name))/policy"
    let changes = changes
    let body =
      changes.isEmpty
      ? try client.call("GET", path)
      : try client.call("PATCH", path, body: .bytes([UInt8](JSONEncoder().encode(changes))))
    if gateway.json { return JSONOutput.pass(body) }
    KnobView.table(try AdminClient.decode(body))
  }
}

struct ScalingKnobs: ParsableArguments {
  @Option(help: "Workers kept even when nobody calls.") var minWorkers: String?
  @Option(help: "Most workers at once.") var maxWorkers: String?
  @Option(help: "Workers started with a deploy.") var initialWorkers: String?
  @Option(help: "Idle workers kept above those in use.") var bufferWorkers: String?
  @Option(help: "Workers started when a request comes and none runs.") var activationScale: String?
  @Option(help: "Requests per worker that the scaler aims at.") var targetInFlight: String?
  @Option(help: "Requests that may wait.") var maxQueueLength: String?
  @Option(help: "Over how long the scaler averages.") var window: String?
  @Option(help: "How often the scaler decides.") var tick: String?
  @Option(help: "Over how long it averages to notice a burst.") var panicWindow: String?
  @Option(help: "How much of the workers there are a burst must ask for.") var panicThreshold: String?
  @Option(help: "How long more workers must be wanted.") var upscaleStabilization: String?
  @Option(help: "How long fewer workers must be wanted.") var downscaleStabilization: String?
  @Option(help: "Most growth of the pool in one decision.") var maxUpscaleFactor: String?
  @Option(help: "Least that one decision leaves of the pool.") var maxDownscaleFactor: String?
  @Option(help: "Growth of less than this share is left alone.") var upscaleTolerance: String?
  @Option(help: "A cut of less than this share is left alone.") var downscaleTolerance: String?
  @Option(help: "How long an idle worker is kept: a duration, 'learned', 'adaptive', 'cost' or 'forever'.")
  var keepAlive: String?
  @Option(help: "How long a worker may be kept idle to spare one cold start.") var coldStartCost: String?
  @Option(help: "When workers are kept: '0 8 * * mon-fri for 10h workers 2', more after ';'.") var warmWindows: String?

  @Option(help: "How long a worker or model keeps its memory at least while others wait, or 'auto'.")
  var minResidency: String?
  @Option(help: "How long a request waits for memory before those in use make room.") var maxModelWait: String?

  var values: [(String, String?)] {
    [
      ("min-workers", minWorkers), ("max-workers", maxWorkers), ("initial-workers", initialWorkers),
      ("buffer-workers", bufferWorkers), ("activation-scale", activationScale), ("target-in-flight", targetInFlight),
      ("max-queue-length", maxQueueLength), ("window", window), ("tick", tick), ("panic-window", panicWindow),
      ("panic-threshold", panicThreshold), ("upscale-stabilization", upscaleStabilization),
      ("downscale-stabilization", downscaleStabilization), ("max-upscale-factor", maxUpscaleFactor),
      ("max-downscale-factor", maxDownscaleFactor), ("upscale-tolerance", upscaleTolerance),
      ("downscale-tolerance", downscaleTolerance), ("keep-alive", keepAlive), ("cold-start-cost", coldStartCost),
      ("warm-windows", warmWindows), ("min-residency", minResidency), ("max-model-wait", maxModelWait),
    ]
  }
}

struct TimeoutKnobs: ParsableArguments {
  @Option(help: "How long a request may wait for a worker.") var coldStartTimeout: String?
  @Option(help: "A load without progress for this long has failed.") var loadStallTimeout: String?
  @Option(help: "How long until a response must begin.") var firstByteTimeout: String?
  @Option(help: "Longest silence within a response.") var idleTimeout: String?
  @Option(help: "Longest time for a whole request, or 'none'.") var requestTimeout: String?
  @Option(help: "How long requests in flight may finish when a worker stops.") var drainTimeout: String?

  var values: [(String, String?)] {
    [
      ("cold-start-timeout", coldStartTimeout), ("load-stall-timeout", loadStallTimeout),
      ("first-byte-timeout", firstByteTimeout), ("idle-timeout", idleTimeout), ("request-timeout", requestTimeout),
      ("drain-timeout", drainTimeout),
    ]
  }
}
