import HearthCore
import NIOCore

/// Spares: of a function of many models one process is kept that is forked, isolated and has made the author's class,
/// so that the next model that is asked for costs its load alone.
extension LocalHost {
  /// What a spare is good for: any model of one version.
  struct SpareKey: Hashable {
    let function: FunctionName
    let deploy: Int

    init(_ plan: WorkerPlan) {
      function = plan.function
      deploy = plan.deploy
    }
  }

  /// 1 min: how long no spare is made after their memory was needed.
  private static let sparePause = TimeAmount.minutes(1)
  /// 2^62: numbers of spares, beyond those of any worker that is asked for.
  private static let firstSpare: UInt64 = 1 << 62

  /// The spare for a plan, if there is one. It is the caller's then.
  func takeSpare(for plan: WorkerPlan) -> LocalWorker? {
    guard plan.model != nil else { return nil }
    return spares.withLockedValue { spares in
      guard let spare = spares[SpareKey(plan)], spare.mayBeTakenOver else { return nil }
      spares[SpareKey(plan)] = nil
      return spare
    }
  }

  /// Starts a spare for the models of a plan's version, unless there is one.
  func refillSpare(for plan: WorkerPlan) {
    let key = SpareKey(plan)
    guard plan.model != nil, plan.forks, spares.withLockedValue({ $0[key] == nil }), hasModels(key),
      NIODeadline.now() >= sparesAllowed
    else { return }
    var plan = plan
    spareCount += 1
    plan.id = WorkerID(LocalHost.firstSpare + spareCount)
    plan.model = nil
    let spare = makeWorker(plan, isSpare: true) { _, _ in }
    spares.withLockedValue { $0[key] = spare }
    spare.whenGone { [self, unowned spare] in
      spares.withLockedValue { spares in if spares[key] === spare { spares[key] = nil } }
    }
    spare.whenReady { [self] in spareObserver.withLockedValue { $0 }() }
    launch(spare)
  }

  public func whenSparesChange(_ action: @escaping @Sendable () -> Void) {
    spareObserver.withLockedValue { $0 = action }
  }

  public func dropSpares() {
    loop.execute { [self] in
      sparesAllowed = .now() + LocalHost.sparePause
      let dropped = spares.withLockedValue { spares in
        defer { spares = [:] }
        return Array(spares.values)
      }
      for spare in dropped { spare.kill() }
      spareObserver.withLockedValue { $0 }()
    }
  }

  /// Ends the spare of a version that has no model loaded any more.
  func endSpareIfUnused(_ plan: WorkerPlan) {
    let key = SpareKey(plan)
    if plan.model != nil, !hasModels(key) { spares.withLockedValue { $0.removeValue(forKey: key) }?.kill() }
  }

  private func hasModels(_ key: SpareKey) -> Bool {
    workers.values.contains { $0.plan.model != nil && !$0.hasEnded && SpareKey($0.plan) == key }
  }
}
