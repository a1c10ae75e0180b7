import HearthCore
import NIOCore

/// Processes that models share: one for each version of a function with `isolation: shared`.
extension LocalHost {
  /// 1 s: how soon after loads and unloads such a process is measured again.
  private static let measureDelay = TimeAmount.seconds(1)

  /// Loads a model into its version's process, and makes that if there is none.
  func house(_ worker: HousedWorker) {
    if worker.isWithdrawn { return }
    let key = VersionKey(worker.plan)
    if let process = shared.withLockedValue({ $0.values.first { $0.isOpen && VersionKey($0.carrier.plan) == key } }) {
      return process.take(worker)
    }
    var plan = worker.plan
    plan.id = nextOwnID()
    plan.model = nil
    let carrier = makeWorker(plan, role: .shared) { [weak self] carrier, event in
      self?.shared.withLockedValue { $0[carrier.id] }?.happened(event)
    }
    let process = SharedProcess(carrier, loop: loop) { [weak self] in self?.sharedChanged() }
    shared.withLockedValue { $0[carrier.id] = process }
    carrier.whenReady { [self] in overheadObserver.withLockedValue { $0 }() }
    carrier.whenGone { [self, unowned carrier] in shared.withLockedValue { $0[carrier.id] = nil } }
    process.take(worker)
    launch(carrier)
  }

  private func sharedChanged() {
    guard !isMeasureDue else { return }
    isMeasureDue = true
    loop.assumeIsolated().scheduleTask(in: LocalHost.measureDelay) { [self] in
      isMeasureDue = false
      overheadObserver.withLockedValue { $0 }()
    }
  }
}
