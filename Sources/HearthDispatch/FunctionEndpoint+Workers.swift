import HearthCore
import HearthScheduler
import HearthWorker
import NIOConcurrencyHelpers
import NIOCore

/// The workers of an endpoint: from the node's leave to start until they end.
extension FunctionEndpoint {
  /// The node lets a worker start. It may not be wanted any more.
  ///
  /// - Parameter device: which device is its; nil where it needs none.
  func startGranted(_ id: WorkerID, on device: Device?) {
    var isWanted = false
    decide { schedule, now in
      isWanted = schedule.isAsked(id)
      return schedule.workerStartBegan(id, now: now)
    } also: {
      if isWanted { $0.launching.insert(id) }
    }
    if isWanted { start(id, on: device) } else { node.ended(id) }
  }

  /// The node can never let this worker start.
  func startRefused(_ id: WorkerID, _ reason: String) {
    version.log.append("the worker did not start: \(reason)", worker: id)
    failedToStart(id, .tooLarge, reason)
  }

  /// What the node is told of a worker that it is asked for.
  func demand(_ reason: FunctionSchedule.StartReason, onDevice: Bool) -> DeviceSchedule.Demand {
    let resources = version.spec.resources
    var demand = DeviceSchedule.Demand(
      declared: (onDevice ? resources.gpuMemory : resources.memory)?.bytes, reason.urgency)
    if let model {
      demand.declared = model.settings.memory?.bytes
      demand.least = model.bytes
      demand.predicted = surroundings.prediction?.withLockedValue { $0.bytes(files: model.bytes) }
      demand.priority = model.settings.priority
    }
    let schedule = state.withLockedValue {
      ($0.schedule.policy.modelWaitMax, $0.schedule.usage.loadTime, $0.schedule.roomPatience)
    }
    let (wait, load, roomPatience) = schedule
    // By then it is to be served, so room is made a load's time before; half of the wait is for others in any case.
    demand.patience = max(wait - (load ?? .zero), wait / 2)
    // A deploy gives up by then.
    if reason == .initial { demand.patience = min(demand.patience, roomPatience / 2) }
    return demand
  }

  /// A worker that has not begun to start is not wanted any more.
  func withdrawStart(_ id: WorkerID) {
    remove(id) { $0.workerExited(id, now: $1) }
    settleActivations(
      .failure(
        HearthError(
          .loadFailed, "The node has no room for a worker of the \(displayName).",
          hint: "Raise workers-memory, or lower min-workers of other functions.")))
  }

  private func start(_ id: WorkerID, on device: Device?) {
    var plan = version.plan(id, model, deploy: owner.version)
    plan.device = device
    plan.reserved = node.bytes(of: id)
    let handle = surroundings.host.start(plan) { [self] handle, event in
      took(event, from: handle)
    }
    let isEnding = state.withLockedValue { state in
      state.launching.remove(id)
      if state.workers[id] == nil { state.workers[id] = WorkerEntry(handle: handle) }
      state.workers[id]?.device = device
      return state.schedule.isEnding(id)
    }
    // Decided on before there was a handle to carry it out on.
    if isEnding { handle.stop() }
  }

  private func took(_ event: WorkerEvent, from worker: any WorkerHandle) {
    let id = worker.id
    // The event may come before `start` has stored the handle.
    state.withLockedValue { state in
      if state.workers[id] == nil { state.workers[id] = WorkerEntry(handle: worker) }
    }
    switch event {
    case .started(let pid):
      state.withLockedValue { $0.workers[id]?.pid = pid }
    case .progressed(let fraction, let note):
      state.withLockedValue { state in
        if let fraction { state.workers[id]?.fraction = fraction }
        state.workers[id]?.note = note ?? fraction.map { "loading \(Int($0 * 100)) %" } ?? "loading"
        state.schedule.workerProgressed(id, now: clock.now)
      }
    case .ready(let spawn, let load, let isRestored):
      state.withLockedValue { state in
        state.workers[id]?.timing = StartTiming(spawn: spawn, load: load, isRestored: isRestored)
        state.workers[id]?.note = nil
      }
      decide { $0.workerBecameReady(id, now: $1) }
      node.becameReady(id)
      settleActivations(.success(()))
    case .measured(let bytes, let peak, let kept): node.told(id, note(id, bytes, peak: peak), peak: peak, kept: kept)
    case .withdrew(let copy):
      let invocation = state.withLockedValue { $0.recalled.removeValue(forKey: copy) }
      invocation?.onLoop { $0.withdrawn(by: worker) }
    case .failedToStart(let reason, let hasRunOut):
      version.log.append("the worker did not start: \(reason)", worker: id)
      guard hasRunOut else { return failedToStart(id, .failed, reason) }
      failedToStart(id, .ranOut, node.ranOut(id, reason))
    case .exited(let description, let kept):
      version.log.append("the worker ended: \(description)", worker: id)
      remove(id, kept: kept) { $0.workerExited(id, now: $1) }
    }
  }

  private func failedToStart(_ id: WorkerID, _ failure: FunctionSchedule.StartFailure, _ reason: String) {
    var isTriedAgain = false
    remove(id) { schedule, now in
      let actions = schedule.workerFailedToStart(id, failure, reason: reason, now: now)
      isTriedAgain = schedule.hasRunOut
      return actions
    }
    guard !isTriedAgain else { return }
    settleActivations(
      .failure(
        failure == .failed
          ? loadFailure(reason, retryAfter: nil) : memoryFailure(reason)))
  }

  /// What errors call it.
  var displayName: String {
    model.map { "model '\($0.name)' of '\(version.name)'" } ?? "function '\(version.name)'"
  }

  private func remove(
    _ id: WorkerID, kept: ByteSize = .zero, _ fact: (inout FunctionSchedule, HearthInstant) -> [FunctionSchedule.Action]
  ) {
    let effects = state.withLockedValue { state in
      let effects = resolve(fact(&state.schedule, clock.now), &state)
      state.workers[id] = nil
      return effects
    }
    // Before what follows: its memory is free for the worker that takes its place.
    node.ended(id, kept: kept)
    perform(effects)
    settleIfEmpty()
  }

  // Room for others.

  /// Idle workers that could make room, now or later; their bytes are the node's to fill in.
  func reclaimable() -> FunctionSchedule.Reclaimable {
    var found = state.withLockedValue { $0.schedule.reclaimable(now: clock.now) }
    if let priority = model?.settings.priority {
      for index in found.candidates.indices { found.candidates[index].priority = priority }
    }
    return found
  }

  /// Stops a worker if it is still idle.
  func reclaim(_ id: WorkerID) -> Bool {
    var isStopped = false
    decide { schedule, now in
      let actions = schedule.workerReclaimed(id, now: now)
      isStopped = !actions.isEmpty
      return actions
    }
    return isStopped
  }

  /// Lets one worker finish what it has and stop, if there is one to spare.
  func yieldWorker(toSuccessor: Bool, where isThere: (WorkerID) -> Bool) -> FunctionSchedule.Yielding {
    var yielding = FunctionSchedule.Yielding.none(until: nil)
    decide { schedule, now in
      yielding = schedule.workerYielded(toSuccessor: toSuccessor, now: now, where: isThere)
      if case .yielded(_, let actions) = yielding { return actions }
      return []
    }
    return yielding
  }

  /// Measures the memory of workers that have served a request: before, it says little of what they will take. Each is
  /// measured ever more rarely, since the kernel holds up a process of many pages while it counts them. Reads files;
  /// not for an event loop.
  func measureWorkers() {
    let now = clock.now
    let entries = state.withLockedValue { state in
      state.workers.filter { state.schedule.hasServed($0.key) && $0.value.nextMeasure <= now }
    }
    for (id, entry) in entries {
      if let device = entry.device, let pid = entry.pid, !version.sharesProcesses,
        let bytes = surroundings.host.used(of: device, by: pid)
      {
        node.told(id, note(id, bytes), peak: bytes, kept: .zero)
      }
      guard let bytes = entry.handle.memory else { continue }
      state.withLockedValue { $0.workers[id]?.measureAgain(after: now) }
      node.measured(id, usesDevice ? bytes : note(id, bytes))
    }
  }

  /// Whether only want of memory makes its workers go.
  var keepsForever: Bool { policy.keepAlive == .forever }

  /// Whether its workers need a device.
  var usesDevice: Bool { version.spec.resources.gpu > 0 }

  /// Notes what a worker was seen to take where memory is scarce. The most it took counts: it may take that again.
  ///
  /// - Parameter peak: the most while it was loaded, which the next one is reserved.
  private func note(_ id: WorkerID, _ bytes: ByteSize, peak: ByteSize = .zero) -> ByteSize {
    let most = state.withLockedValue { state in
      let most = max(bytes, state.workers[id]?.memory ?? bytes)
      state.workers[id]?.memory = most
      state.measured = max(most, state.measured ?? most)
      return most
    }
    if let model {
      surroundings.prediction?.withLockedValue { $0.observe(files: model.bytes, memory: max(most, peak).bytes) }
    }
    return most
  }
}
