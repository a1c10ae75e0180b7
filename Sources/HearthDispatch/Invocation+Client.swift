import HearthCore
import HearthHTTP1
import HearthWorker
import NIOCore

/// What the client's connection tells an invocation.
extension Invocation: ExchangeReceiver {
  func requestBody(_ bytes: ByteBuffer) {
    switch state {
    case .receiving, .waiting, .connecting:
      hold(bytes)
      guard heldBytes >= Invocation.heldBytesMax else { return }
      exchange.setBodyPaused(true)
      // Too large to be waited for: the rest is streamed to the worker.
      if case .receiving = state { submit() }
    case .running(_, let connection):
      if canReplay { hold(bytes) }
      if isTunnel { lastByte = endpoint.clock.now }
      connection.sendBody(bytes)
      needsFlush = true
    case .cancelling, .done: break
    }
  }

  /// Keeps bytes for the case that they have to go to another worker.
  private func hold(_ bytes: ByteBuffer) {
    held.append(bytes)
    heldBytes += bytes.readableBytes
    guard case .running = state, heldBytes > Invocation.heldBytesMax else { return }
    // Too large to be kept: from here on the worker must answer or the request fails.
    canReplay = false
    held = []
  }

  func requestBodyEnded() {
    bodyEnded = true
    switch state {
    case .receiving: submit()
    case .running(_, let connection):
      connection.endBody()
      needsFlush = true
    case .waiting, .connecting, .cancelling, .done: break
    }
  }

  func requestReadCompleted() {
    switch state {
    case .receiving where !isAnnounced:
      isAnnounced = true
      endpoint.announce()
    case .running(_, let connection) where needsFlush:
      needsFlush = false
      connection.flush()
    case .receiving, .waiting, .connecting, .running, .cancelling, .done: break
    }
  }

  func clientLeft() {
    deadline.cancel()
    switch state {
    case .receiving:
      state = .done
      withdrawAnnouncement()
    case .waiting:
      state = .done
      endpoint.abandon(self)
    case .connecting: state = .done
    case .running(let worker, let connection): cancel(worker, connection)
    case .cancelling, .done: break
    }
  }

  func clientWritabilityChanged(isWritable: Bool) {
    clientIsWritable = isWritable
    guard case .running(let worker, let connection) = state, connection.isAt(self) else { return }
    if !isWritable {
      // Those behind this one must not wait for its client.
      if endpoint.version.isHandler { endpoint.heldUp(worker.id) }
      for case let follower as Invocation in connection.followers { follower.recall(from: worker) }
    }
    connection.setReadPaused(!isWritable)
  }

  /// The client's own deadline has passed, whatever the request was at.
  func deadlinePassed() {
    let error = HearthError(.requestDeadline, "The request was not answered by its Hearth-Deadline.")
    switch state {
    case .receiving:
      withdrawAnnouncement()
      fail(error)
    case .waiting:
      endpoint.abandon(self)
      fail(error)
    case .connecting: fail(error)
    case .running(let worker, let connection):
      cancel(worker, connection)
      answer(with: error)
    case .cancelling, .done: break
    }
  }

  /// Tells a client that asked for it how its request stands.
  private func reportProgress(now: HearthInstant) {
    guard progress != nil, let standing = endpoint.standing(of: self, now: now) else { return }
    let isFirst = progress?.hasBegun == false
    guard let event = progress?.event(standing, now: now) else { return }
    if isFirst { exchange.begin(ProgressStream.head, stamp) }
    exchange.write(event)
    exchange.flush()
  }

  func timePassed(now: HearthInstant) {
    if case .waiting = state { reportProgress(now: now) }
    guard case .running(let worker, let connection) = state, connection.isAt(self) else { return }
    let policy = endpoint.policy
    let error: HearthError
    if let limit = policy.requestTimeout, runBegan.duration(to: now) > limit {
      error = HearthError(
        .requestDeadline, "The function '\(endpoint.version.name)' did not finish within \(limit.text).",
        hint: "Raise request-timeout, or send less work in one request.")
    } else if !responseBegan, lastByte.duration(to: now) > policy.firstByteTimeout {
      error = HearthError(
        .firstByteTimeout,
        "The function '\(endpoint.version.name)' sent nothing within \(policy.firstByteTimeout.text).",
        hint: "Raise first-byte-timeout, or let the function stream its answer.")
    } else if responseBegan, clientIsWritable, lastByte.duration(to: now) > policy.idleTimeout {
      error = HearthError(
        .idleTimeout, "The function '\(endpoint.version.name)' fell silent for \(policy.idleTimeout.text).")
    } else {
      return
    }
    cancel(worker, connection)
    answer(with: error)
  }
}
