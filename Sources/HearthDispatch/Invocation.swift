import Glibc
import HearthCore
import HearthHTTP1
import HearthScheduler
import HearthWorker
import NIOCore

/// One request on its way through: it waits, runs on a worker, and its bytes go straight between the two connections.
/// Lives on the client's event loop.
final class Invocation: ExchangeReceiver, WorkerResponseReceiver {
  private enum State {
    case waiting
    /// A data connection is being opened.
    case connecting(any WorkerHandle)
    case running(any WorkerHandle, WorkerConnection)
    /// Nobody waits for the answer; the worker still has the request.
    case cancelling(any WorkerHandle, WorkerConnection)
    case done
  }

  /// 256 KiB: what is held of a body while the request waits; the rest stays in the client's socket.
  private static let heldBytesMax = 256 * 1024
  /// 5 s: how long author's code may take to notice that it was cancelled before its worker is killed.
  private static let cancelGrace = TimeAmount.seconds(5)

  /// 2 ms: a full backlog is emptied as fast as a program accepts.
  private static let connectRetry = TimeAmount.milliseconds(2)

  let id: InvocationID
  private let exchange: any ClientExchange
  private let dispatcher: Dispatcher
  private var endpoint: FunctionEndpoint
  private var state = State.waiting
  private var kind = FunctionSchedule.StartKind.hot
  private var timing = FunctionEndpoint.StartTiming()

  /// Body bytes that may have to be sent again: all of them until the worker has begun to answer.
  private var held: [ByteBuffer] = []
  private var heldBytes = 0
  private var bodyEnded = false
  private var canReplay = true

  private var runBegan = HearthInstant(nanoseconds: 0)
  private var lastByte = HearthInstant(nanoseconds: 0)
  private var responseBegan = false
  private var executionTime: Int64 = 0

  init(_ id: InvocationID, _ exchange: any ClientExchange, endpoint: FunctionEndpoint, dispatcher: Dispatcher) {
    self.id = id
    self.exchange = exchange
    self.endpoint = endpoint
    self.dispatcher = dispatcher
    bodyEnded = exchange.request.framing == .none
  }

  /// Runs `body` on the invocation's event loop: now, if that is where we are.
  func onLoop(_ body: @escaping (Invocation) -> Void) {
    let loop = exchange.eventLoop
    if loop.inEventLoop { return body(self) }
    nonisolated(unsafe) let work = body
    nonisolated(unsafe) let invocation = self
    loop.execute { work(invocation) }
  }

  // From the endpoint.

  func run(on worker: any WorkerHandle, _ kind: FunctionSchedule.StartKind, _ timing: FunctionEndpoint.StartTiming) {
    guard case .waiting = state else { return endpoint.finished(self, on: worker.id) }
    self.kind = kind
    self.timing = kind == .zygote || kind == .cold ? timing : FunctionEndpoint.StartTiming()
    runBegan = endpoint.clock.now
    lastByte = runBegan
    if let connection = worker.idleConnection(on: exchange.eventLoop) { return send(to: worker, connection) }
    connect(to: worker)
  }

  private func connect(to worker: any WorkerHandle) {
    state = .connecting(worker)
    worker.connect(on: exchange.eventLoop).assumeIsolated().whenComplete { [self] result in
      switch (state, result) {
      case (.connecting, .success(let connection)):
        send(to: worker, connection)
        connection.flush()
      case (.connecting, .failure(let error)): couldNotConnect(to: worker, error)
      case (_, .success(let connection)):
        worker.recycle(connection)
        endpoint.finished(self, on: worker.id)
      case (_, .failure): endpoint.finished(self, on: worker.id)
      }
    }
  }

  /// A program whose backlog is full is busy, not broken; a gateway without descriptors is not the worker's fault.
  private func couldNotConnect(to worker: any WorkerHandle, _ error: any Error) {
    switch (error as? IOError)?.errnoCode {
    case EAGAIN:
      exchange.eventLoop.assumeIsolated().scheduleTask(in: Invocation.connectRetry) { [self] in
        if case .connecting = state { connect(to: worker) } else { endpoint.finished(self, on: worker.id) }
      }
    case EMFILE, ENFILE:
      fail(HearthError(.connectionsExhausted, "The gateway has no connection left.", hint: "Try again later."))
      endpoint.finished(self, on: worker.id)
    default: bounce(off: worker)
    }
  }

  func rejected(_ rejection: FunctionSchedule.Rejection) {
    guard case .waiting = state else { return }
    if case .retired = rejection, let next = dispatcher.endpoint(endpoint.version.name), next !== endpoint {
      endpoint = next
      return next.submit(self)
    }
    fail(dispatcher.error(for: rejection, of: endpoint.version.name))
  }

  private func send(to worker: any WorkerHandle, _ connection: WorkerConnection) {
    state = .running(worker, connection)
    var head = ByteBuffer()
    head.reserveCapacity(512)
    HeadWriter.write(exchange.request, target: exchange.target, extra: requestFields, into: &head)
    connection.begin(
      self, head: head, method: exchange.request.method, isChunked: exchange.request.framing == .chunked)
    // A connection that ended unnoticed fails at once, and this is waiting again.
    guard case .running = state else { return }
    if !bodyEnded { exchange.setBodyPaused(false) }
    for bytes in held { connection.sendBody(bytes) }
    if bodyEnded { connection.endBody() }
    if bodyEnded || !held.isEmpty { connection.flush() }
  }

  private var requestFields: String {
    var fields = "hearth-request-id: \(exchange.requestID)\r\n"
    if let timeout = endpoint.requestTimeout {
      fields += "hearth-timeout-ms: \(Int(timeout.milliseconds))\r\n"
    }
    return fields
  }

  // From the client.

  func requestBody(_ bytes: ByteBuffer) {
    switch state {
    case .waiting, .connecting:
      hold(bytes)
      if heldBytes >= Invocation.heldBytesMax { exchange.setBodyPaused(true) }
    case .running(_, let connection):
      if canReplay { hold(bytes) }
      connection.sendBody(bytes)
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
    if case .running(_, let connection) = state { connection.endBody() }
  }

  func requestReadCompleted() {
    if case .running(_, let connection) = state { connection.flush() }
  }

  func clientLeft() {
    switch state {
    case .waiting:
      state = .done
      _ = endpoint.abandon(self)
    case .connecting: state = .done
    case .running(let worker, let connection): cancel(worker, connection)
    case .cancelling, .done: break
    }
  }

  func clientWritabilityChanged(isWritable: Bool) {
    if case .running(_, let connection) = state { connection.setReadPaused(!isWritable) }
  }

  func timePassed(now: HearthInstant) {
    guard case .running(let worker, let connection) = state else { return }
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
    } else if responseBegan, lastByte.duration(to: now) > policy.idleTimeout {
      error = HearthError(
        .idleTimeout, "The function '\(endpoint.version.name)' fell silent for \(policy.idleTimeout.text).")
    } else {
      return
    }
    cancel(worker, connection)
    exchange.fail(error, source: .gateway, stamp)
  }

  // From the worker.

  func workerResponseBegan(_ head: ResponseHead) {
    guard case .running = state else { return }
    let now = endpoint.clock.now
    responseBegan = true
    lastByte = now
    executionTime = now.nanoseconds - runBegan.nanoseconds
    held = []
    canReplay = false
    exchange.begin(head, stamp)
  }

  func workerResponseBody(_ bytes: ByteBuffer) {
    guard case .running = state else { return }
    lastByte = endpoint.clock.now
    exchange.write(bytes)
  }

  func workerReadCompleted() {
    if case .running = state { exchange.flush() }
  }

  func workerResponseEnded(isReusable: Bool) {
    switch state {
    case .running(let worker, let connection):
      state = .done
      exchange.end()
      release(worker, connection, isReusable: isReusable)
    case .cancelling(let worker, let connection):
      state = .done
      release(worker, connection, isReusable: isReusable)
    case .waiting, .connecting, .done: break
    }
  }

  private func release(_ worker: any WorkerHandle, _ connection: WorkerConnection, isReusable: Bool) {
    if isReusable { worker.recycle(connection) }
    endpoint.finished(self, on: worker.id)
  }

  func workerFailed(_ failure: WorkerFailure) {
    switch state {
    case .running(let worker, _):
      if failure == .unreachable, canReplay { return bounce(off: worker) }
      state = .done
      exchange.fail(error(for: failure), source: .gateway, stamp)
      if isFatal(failure) { worker.kill() }
      endpoint.finished(self, on: worker.id)
    case .cancelling(let worker, _):
      state = .done
      endpoint.finished(self, on: worker.id)
    case .waiting, .connecting, .done: break
    }
  }

  /// Whether a worker is beyond trust. The runtime ends a stream that failed by closing its connection, and a program
  /// may close an idle connection at any time; both live on.
  private func isFatal(_ failure: WorkerFailure) -> Bool {
    switch failure {
    case .cutShort: false
    case .closedEarly: endpoint.version.isHandler
    case .unreachable, .badResponse: true
    }
  }

  func workerWritabilityChanged(isWritable: Bool) {
    if case .running = state { exchange.setBodyPaused(!isWritable) }
  }

  // Endings.

  private func bounce(off worker: any WorkerHandle) {
    state = .waiting
    endpoint.returned(self, from: worker)
  }

  private func cancel(_ worker: any WorkerHandle, _ connection: WorkerConnection) {
    state = .cancelling(worker, connection)
    connection.setReadPaused(false)
    guard endpoint.version.isHandler, bodyEnded else {
      // A program has no way to be told but this; a handler that waits for the rest of a body has none either.
      state = .done
      connection.abandon()
      return endpoint.finished(self, on: worker.id)
    }
    worker.cancel(request: exchange.requestID)
    exchange.eventLoop.assumeIsolated().scheduleTask(in: Invocation.cancelGrace) { [self] in
      guard case .cancelling(let worker, let connection) = state else { return }
      state = .done
      connection.abandon()
      worker.kill()
      endpoint.finished(self, on: worker.id)
    }
  }

  private func fail(_ error: HearthError) {
    state = .done
    exchange.fail(error, source: .gateway, stamp)
  }

  private func error(for failure: WorkerFailure) -> HearthError {
    let name = endpoint.version.name
    switch failure {
    case .unreachable, .closedEarly, .cutShort:
      return HearthError(
        .workerDied, "The worker of '\(name)' ended before it had answered.",
        hint: "Its log may say why: hearth logs \(name).")
    case .badResponse(let problem):
      return HearthError(
        .workerBadResponse, "The worker of '\(name)' sent a response that is not valid HTTP.",
        hint: "A command must speak HTTP/1.1 on its socket.", cause: problem)
    }
  }

  private var stamp: ResponseStamp {
    var stamp = ResponseStamp(requestID: exchange.requestID, version: endpoint.shortDigest)
    let hasRun = runBegan.nanoseconds != 0
    let waited = (hasRun ? runBegan : endpoint.clock.now).nanoseconds - exchange.arrival.nanoseconds
    stamp.spawn = timing.spawn.nanoseconds
    stamp.load = timing.load.nanoseconds
    stamp.queue = waited - stamp.spawn - stamp.load
    if hasRun { stamp.start = kind.rawValue }
    stamp.execution = executionTime
    return stamp
  }
}

@available(*, unavailable)
extension Invocation: Sendable {}
