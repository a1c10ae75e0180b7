import HearthCore
import NIOCore

/// Processes that models share: one for each version of a function with `isolation: shared`.
extension LocalHost {
  /// 1 s: how soon after loads and unloads such a process is measured again.
  private static let measureDelay = TimeAmount.seconds(1)

  /// Loads a model into its version's process, and makes that if there is none.
  func house(_ worker: HousedWorker) {
    if worker.hasEnded { return }
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
    let process = SharedProcess(carrier, loop: loop) { [keptCount] in
      keptCount.withLockedValue { count in
        count += 1
        return count
      }
    } changed: { [weak self] in
      self?.sharedChanged()
    }
    shared.withLockedValue { $0[carrier.id] = process }
    carrier.whenReady { [self] in overheadObserver.withLockedValue { $0 }() }
    carrier.whenGone { [self, unowned carrier] in shared.withLockedValue { $0[carrier.id] = nil } }
    process.take(worker)
    launch(carrier)
  }

  public var keptModels: [KeptModel] {
    shared.withLockedValue { Array($0.values) }.flatMap(\.kept).sorted { $0.number < $1.number }
  }

  public func discard(_ model: KeptModel) {
    loop.execute { [self] in
      for process in shared.withLockedValue({ Array($0.values) })
      where process.kept.contains(where: { $0.number == model.number }) {
        process.discard(model)
      }
    }
  }

  public func forget(_ function: FunctionName, deploy: Int) {
    loop.execute { [self] in
      for process in shared.withLockedValue({ Array($0.values) })
      where process.carrier.plan.function == function && process.carrier.plan.deploy == deploy {
        process.retire()
      }
    }
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
