import HearthCore
import Testing

@testable import HearthScheduler

/// Each knob's effect on a pool, one by one.
@Suite("Knobs of the scaler")
struct ScalingKnobTests {
  @Test("target-in-flight: fewer requests a worker, more workers", arguments: [(4.0, 1), (2.0, 2), (1.0, 4), (0.5, 8)])
  func target(target: Double, workers: Int) {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 4
      $0.targetInFlight = target
    }
    probe.load(4, for: .seconds(120))
    #expect(probe.workers == workers)
  }

  @Test("window: the longer, the later a lasting load is met", arguments: [(20, 6...10), (120, 40...50)])
  func window(window: Int, seconds: ClosedRange<Int>) throws {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 4
      $0.targetInFlight = 2
      $0.window = .seconds(window)
      $0.panicThreshold = 1_000
    }
    // A window's worth of almost nothing first, so that it is full.
    for _ in 0..<window { probe.load(1, for: .seconds(1)) }
    let began = probe.now
    probe.load(4, for: .seconds(300))
    let grown = try #require(probe.started.first { $0.at > began })
    #expect(seconds.contains(Int(began.duration(to: grown.at).seconds)))
  }

  @Test("tick: nothing is decided between two")
  func tick() {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 4
      $0.targetInFlight = 1
      $0.tick = .seconds(5)
      $0.panicWindow = .seconds(10)
    }
    probe.load(4, for: .seconds(4.9))
    #expect(probe.workers == 1)
    probe.load(4, for: .seconds(0.2))
    #expect(probe.workers > 1)
  }

  @Test("panic-window and panic-threshold: a burst is met at once, and nothing stops while it lasts")
  func panic() {
    func workers(threshold: Double, after seconds: Int) -> ScheduleProbe {
      var probe = ScheduleProbe {
        $0.concurrencyMax = 8
        $0.targetInFlight = 2
        $0.panicThreshold = threshold
        $0.keepAlive = .fixed(.seconds(1))
        $0.downscaleStabilization = .zero
      }
      for _ in 0..<60 { probe.load(1, for: .seconds(1)) }
      probe.load(8, for: .seconds(8))
      probe.run(for: .seconds(seconds))
      return probe
    }
    #expect(workers(threshold: 2, after: 0).workers == 4)
    #expect(workers(threshold: 2, after: 0).schedule.scaler.isPanicking(now: instant(68)))
    #expect(workers(threshold: 2, after: 40).workers == 4, "keep-alive is a second, but it is a panic")
    #expect(workers(threshold: 2, after: 70).workers == 0, "a window after the last sign of it the panic is over")
    #expect(workers(threshold: 10, after: 0).workers < 4)
  }

  @Test("A queue that ends before another worker could start is no panic")
  func noPanicForQuickQueue() {
    var probe = ScheduleProbe { $0.panicWindow = .seconds(2) }
    probe.startTime = .seconds(30)
    probe.request(lasting: .seconds(1))
    probe.run(for: .seconds(40))
    for _ in 0..<8 { probe.request(lasting: .seconds(1)) }
    probe.run(for: .seconds(7))
    #expect(probe.schedule.scaler.panicUntil == nil)
  }

  @Test("upscale-stabilization: more workers must be wanted for as long", arguments: [0, 20])
  func upscaleStabilization(seconds: Int) throws {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 4
      $0.targetInFlight = 1
      $0.upscaleStabilization = .seconds(seconds)
    }
    probe.load(4, for: .seconds(100))
    let grown = try #require(probe.started.dropFirst().first)
    #expect(grown.at >= instant(Double(seconds)) && grown.at <= instant(Double(seconds) + 4))
  }

  @Test("downscale-stabilization: surplus stays for as long, though keep-alive is forever", arguments: [10, 100])
  func downscaleStabilization(seconds: Int) throws {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 4
      $0.targetInFlight = 1
      $0.keepAlive = .forever
      $0.downscaleStabilization = .seconds(seconds)
      $0.downscaleFactorMax = 0
    }
    probe.load(4, for: .seconds(100))
    #expect(probe.workers == 4)
    probe.run(for: .seconds(1_000))
    #expect(probe.workers == 1, "the last one is keep-alive's")
    let first = try #require(probe.stopped.first)
    #expect(first.at >= instant(100 + Double(seconds)) && first.at <= instant(100 + Double(seconds) + 64))
    guard case .traffic = first.reason else { return #expect(Bool(false), "\(first.reason)") }
  }

  @Test("max-upscale-factor: a decision multiplies the pool by no more")
  func upscaleFactor() {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 16
      $0.targetInFlight = 1
      $0.upscaleFactorMax = 2
    }
    probe.load(16, for: .seconds(3))
    #expect(probe.workers == 2)
    #expect(probe.schedule.decisions.contains { $0.limit == "max-upscale-factor" })
  }

  @Test("max-downscale-factor: a decision leaves this share of the pool")
  func downscaleFactor() {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 8
      $0.targetInFlight = 1
      $0.keepAlive = .forever
      $0.downscaleStabilization = .zero
      $0.downscaleFactorMax = 0.5
      $0.panicThreshold = 1_000
    }
    probe.load(8, for: .seconds(200))
    #expect(probe.workers == 8)
    var sizes: [Int] = []
    for _ in 0..<40 {
      probe.run(for: .seconds(2))
      if sizes.last != probe.workers { sizes.append(probe.workers) }
    }
    for (before, after) in zip(sizes, sizes.dropFirst()) { #expect(after >= before / 2, "\(sizes)") }
    #expect(sizes.last == 1)
  }

  @Test("tolerances: a wish a little off the pool is left alone")
  func tolerances() {
    func workers(tolerance: Double) -> Int {
      var probe = ScheduleProbe {
        $0.concurrencyMax = 100
        $0.targetInFlight = 4.8
        $0.upscaleTolerance = tolerance
        $0.panicThreshold = 1_000
        $0.workersMin = 2
      }
      probe.activate()
      probe.load(10, for: .seconds(120))
      return probe.workers
    }
    // 10 / 4.8 is 2.08: within a twentieth of two.
    #expect(workers(tolerance: 0) == 3)
    #expect(workers(tolerance: 0.05) == 2)
    var probe = ScheduleProbe {
      $0.concurrencyMax = 100
      $0.targetInFlight = 1
      $0.keepAlive = .forever
      $0.downscaleStabilization = .zero
      $0.downscaleTolerance = 0.5
      $0.panicThreshold = 1_000
    }
    probe.load(10, for: .seconds(120))
    probe.load(6, for: .seconds(120))
    #expect(probe.workers == 10)
    #expect(probe.schedule.decisions.last?.outcome == .held(knob: "downscale-tolerance"))
    probe.setPolicy { $0.downscaleTolerance = 0 }
    probe.load(6, for: .seconds(120))
    #expect(probe.workers == 6)
  }

  @Test("min-workers and max-workers bound what traffic asks for")
  func bounds() {
    var probe = ScheduleProbe {
      $0.concurrencyMax = 8
      $0.targetInFlight = 1
      $0.workersMin = 2
      $0.workersMax = 3
      $0.keepAlive = .fixed(.seconds(10))
    }
    probe.activate()
    probe.load(8, for: .seconds(100))
    #expect(probe.workers == 3)
    #expect(probe.schedule.decisions.contains { $0.limit == "max-workers" || $0.outcome == .held(knob: "max-workers") })
    probe.run(for: .seconds(1_000))
    #expect(probe.workers == 2)
  }

  @Test("initial-workers start with the deploy and go by keep-alive")
  func initial() {
    var probe = ScheduleProbe { $0.keepAlive = .fixed(.seconds(10)) }
    probe.activate(workers: 3)
    #expect(probe.workers == 3)
    probe.run(for: .seconds(11))
    #expect(probe.workers == 0)
  }

  @Test("activation-scale workers start when none runs")
  func activationScale() {
    var probe = ScheduleProbe { $0.activationScale = 3 }
    probe.request()
    #expect(probe.started.map(\.reason) == [.activation, .activation, .activation])
  }

  @Test("warm-windows keep workers while they are open, and follow the wall clock when it is set")
  func warmWindows() throws {
    var probe = ScheduleProbe {
      $0.warmWindows = [WarmWindow("0 8 * * * for 1h workers 2")!]
      $0.keepAlive = .fixed(.seconds(10))
    }
    // 1970-01-01, half past seven.
    probe.schedule.wallClockRead(offset: .seconds(27_000))
    probe.activate()
    probe.run(for: .seconds(1_790))
    #expect(probe.workers == 0)
    probe.run(for: .seconds(20))
    #expect(probe.workers == 2)
    #expect(probe.started.last?.reason == .warmWindow)
    probe.run(for: .seconds(3_580))
    #expect(probe.workers == 2)
    probe.run(for: .seconds(60))
    #expect(probe.workers == 0)
    // The clock is set back by an hour: noticed within a minute.
    probe.schedule.wallClockRead(offset: .seconds(27_000 - 3_600))
    probe.run(for: .seconds(61))
    #expect(probe.workers == 2)
  }
}
