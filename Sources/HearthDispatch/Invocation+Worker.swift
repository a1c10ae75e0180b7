import HearthCore
import HearthHTTP1
import HearthWorker
import NIOCore

/// What the worker's connection tells an invocation.
extension Invocation: WorkerResponseReceiver {
  func workerTurnCame() {
    let now = endpoint.clock.now
    runBegan = now
    lastByte = now
    if case .cancelling(let worker, let connection) = state { stopWork(worker, connection) }
  }

  func workerResponseBegan(_ head: ResponseHead) {
    guard case .running = state else { return }
    let now = endpoint.clock.now
    responseBegan = true
    lastByte = now
    executionTime = now.nanoseconds - runBegan.nanoseconds
    held = []
    canReplay = false
    isTunnel = head.isUpgrade
    if progress?.hasBegun == true { progress?.answerBegan(head) } else { exchange.begin(head, stamp) }
  }

  func workerResponseBody(_ bytes: ByteBuffer) {
    guard case .running = state else { return }
    lastByte = endpoint.clock.now
    if progress?.keeps(bytes) != true { exchange.write(bytes) }
  }

  func workerReadCompleted() {
    guard case .running(_, let connection) = state else { return }
    exchange.flush()
    if !clientIsWritable { connection.setReadPaused(true) }
  }

  func workerResponseEnded(isReusable: Bool) {
    switch state {
    case .running(let worker, let connection):
      finish()
      deadline.cancel()
      if let event = progress?.answerEvent(request: exchange.requestID) { exchange.write(event) }
      exchange.end()
      release(worker, connection, isReusable: isReusable)
    case .cancelling(let worker, let connection):
      finish()
      release(worker, connection, isReusable: isReusable)
    case .receiving, .waiting, .connecting, .done: break
    }
  }

  private func release(_ worker: any WorkerHandle, _ connection: WorkerConnection, isReusable: Bool) {
    if isReusable { worker.recycle(connection) }
    endpoint.finished(self, on: worker.id)
  }

  /// The worker gave the request back that it had been sent ahead.
  func withdrawn(by worker: any WorkerHandle) {
    switch state {
    case .running(let current, let connection):
      guard current.id == worker.id, connection.withdraw(self) else { return }
      state = .waiting
      endpoint.withdrew(self, from: worker)
    case .cancelling(let current, let connection):
      guard current.id == worker.id, connection.withdraw(self) else { return }
      finish()
      endpoint.finished(self, on: worker.id)
    case .receiving, .waiting, .connecting, .done: break
    }
  }

  func workerFailed(_ failure: WorkerFailure) {
    switch state {
    case .running(let worker, _): runFailed(on: worker, failure)
    case .cancelling(let worker, _):
      finish()
      endpoint.finished(self, on: worker.id)
    case .receiving, .waiting, .connecting, .done: break
    }
  }

  private func runFailed(on worker: any WorkerHandle, _ failure: WorkerFailure) {
    if failure == .notBegun, canReplay {
      state = .waiting
      return endpoint.withdrew(self, from: worker)
    }
    if failure == .unreachable, canReplay { return bounce(off: worker) }
    let isLost = isFatal(failure)
    if isLost { worker.kill() }
    if endpoint.version.spec.idempotent, canReplay, !responseBegan, !wasRetried, !failure.isProtocolError {
      wasRetried = true
      state = .waiting
      return endpoint.withdrew(self, from: worker, isWorkerLost: isLost)
    }
    finish()
    answer(with: error(for: failure))
    endpoint.finished(self, on: worker.id, isWorkerLost: isLost)
  }

  /// Whether a worker is beyond trust. The runtime ends a stream that failed by closing its connection, and a program
  /// may close an idle connection at any time; both live on.
  private func isFatal(_ failure: WorkerFailure) -> Bool {
    switch failure {
    case .cutShort, .notBegun: false
    case .closedEarly: endpoint.version.isHandler
    case .unreachable, .badResponse: true
    }
  }

  func workerWritabilityChanged(isWritable: Bool) {
    if case .running = state, !bodyEnded || isTunnel { exchange.setBodyPaused(!isWritable) }
  }

  private func error(for failure: WorkerFailure) -> HearthError {
    let name = endpoint.version.name
    switch failure {
    case .unreachable, .notBegun, .closedEarly, .cutShort:
      return HearthError(
        .workerDied, "The worker of '\(name)' ended before it had answered.",
        hint: "Its log may say why: hearth logs \(name).")
    case .badResponse(let problem):
      return HearthError(
        .workerBadResponse, "The worker of '\(name)' sent a response that is not valid HTTP.",
        hint: "A command must speak HTTP/1.1 on its socket.", cause: problem)
    }
  }
}

extension WorkerFailure {
  fileprivate var isProtocolError: Bool {
    if case .badResponse = self { true } else { false }
  }
}
