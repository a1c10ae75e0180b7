import HearthCore
import NIOCore

/// Spares: of a function of many models one process is kept that is forked, isolated and has made the author's class,
/// so that the next model that is asked for costs its load alone.
extension LocalHost {
  /// 1 min: how long no spare is made after their memory was needed.
  private static let sparePause = TimeAmount.minutes(1)
  /// The spare for a plan, if there is one. It is the caller's then.
  func takeSpare(for plan: WorkerPlan) -> LocalWorker? {
    guard plan.model != nil else { return nil }
    return spares.withLockedValue { spares in
      guard let spare = spares[VersionKey(plan)], spare.mayBeTakenOver else { return nil }
      spares[VersionKey(plan)] = nil
      return spare
    }
  }

  /// Starts a spare for the models of a plan's version, unless there is one.
  func refillSpare(for plan: WorkerPlan) {
    let key = VersionKey(plan)
    guard plan.model != nil, plan.forks, spares.withLockedValue({ $0[key] == nil }), hasModels(key),
      NIODeadline.now() >= sparesAllowed
    else { return }
    var plan = plan
    plan.id = nextOwnID()
    plan.model = nil
    let spare = makeWorker(plan, role: .spare) { _, _ in }
    spares.withLockedValue { $0[key] = spare }
    spare.whenGone { [self, unowned spare] in
      spares.withLockedValue { spares in if spares[key] === spare { spares[key] = nil } }
    }
    spare.whenReady { [self] in overheadObserver.withLockedValue { $0 }() }
    launch(spare)
  }

  public func whenOverheadChanges(_ action: @escaping @Sendable () -> Void) {
    overheadObserver.withLockedValue { $0 = action }
  }

  public func dropSpares() {
    loop.execute { [self] in
      sparesAllowed = .now() + LocalHost.sparePause
      let dropped = spares.withLockedValue { spares in
        defer { spares = [:] }
        return Array(spares.values)
      }
      for spare in dropped { spare.kill() }
      for process in shared.withLockedValue({ Array($0.values) }) {
        if process.isEmpty { process.kill("its memory was needed") } else { process.discardAll() }
      }
      overheadObserver.withLockedValue { $0 }()
    }
  }

  /// Ends the spare of a version that has no model loaded any more.
  func endSpareIfUnused(_ plan: WorkerPlan) {
    let key = VersionKey(plan)
    if plan.model != nil, !hasModels(key) { spares.withLockedValue { $0.removeValue(forKey: key) }?.kill() }
  }

  private func hasModels(_ key: VersionKey) -> Bool {
    workers.values.contains { $0.plan.model != nil && !$0.hasEnded && VersionKey($0.plan) == key }
  }
}
