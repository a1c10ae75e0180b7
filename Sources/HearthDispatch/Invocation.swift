import Glibc
import HearthCore
import HearthHTTP1
import HearthScheduler
import HearthWorker
import NIOCore

/// One request on its way through: it arrives, waits, runs on a worker, and its bytes go straight between the two
/// connections. Lives on the client's event loop.
///
/// `Invocation+Client` is what the client's connection tells it, `Invocation+Worker` what the worker's does.
final class Invocation {
  enum State {
    /// Its body is on its way; it takes no place anywhere, so that a slow client costs nobody a worker.
    case receiving
    case waiting
    /// A data connection is being opened.
    case connecting(any WorkerHandle)
    /// Its worker has it, or will have it when it has answered those sent before.
    case running(any WorkerHandle, WorkerConnection)
    /// Nobody waits for the answer; the worker still has the request.
    case cancelling(any WorkerHandle, WorkerConnection)
    case done
  }

  /// 256 KiB: what is held of a body before the request is handed on; the rest stays in the client's socket.
  static let heldBytesMax = 256 * 1024
  /// 16 KiB: below, copying a body behind its head is cheaper than a second write.
  private static let coalescedMax = 16 * 1024
  /// 5 s: how long author's code may take to notice that it was cancelled before its worker is killed.
  private static let cancelGrace = TimeAmount.seconds(5)
  /// 2 ms: a full backlog is emptied as fast as a program accepts.
  private static let connectRetry = TimeAmount.milliseconds(2)

  let id: InvocationID
  let exchange: any ClientExchange
  /// Path and query as the worker gets them.
  private var target: String
  let dispatcher: Dispatcher
  var endpoint: FunctionEndpoint
  var state = State.receiving
  private var kind = FunctionSchedule.StartKind.hot
  private var timing = FunctionEndpoint.StartTiming()
  var deadline: RequestDeadline

  /// Body bytes that may have to be sent again: all of them until the worker has begun to answer.
  var held: [ByteBuffer] = []
  var heldBytes = 0
  var bodyEnded: Bool
  /// Whether all of what was sent of the body is still held.
  var canReplay = true
  /// How often it was sent to a worker. Each copy has a name of its own: taking one back says nothing of another.
  private var attempt = 0
  /// Whether its worker was asked to give this copy back.
  private var isRecalled = false
  /// A worker that is to give it back, said before it was handed over.
  private var recalledEarly: WorkerID?
  private var grace: Scheduled<Void>?
  /// Whether it was given to a second worker after the first may have begun it.
  var wasRetried = false
  /// Whether the endpoint was told that this request is on its way, and counts on it.
  var isAnnounced = false
  /// Whether something was written to the worker that waits to be flushed with what else has arrived.
  var needsFlush = false
  var clientIsWritable = true
  /// What a client is told meanwhile that asked for it; nil for all others.
  var progress: ProgressStream?
  /// Whether the function has switched protocols: bytes go both ways as they are.
  var isTunnel = false

  var runBegan = HearthInstant(nanoseconds: 0)
  var lastByte = HearthInstant(nanoseconds: 0)
  var responseBegan = false
  var executionTime: Int64 = 0

  /// Throws `request_malformed` when its deadline is not one.
  init(
    _ id: InvocationID, _ exchange: any ClientExchange, target: String, endpoint: FunctionEndpoint,
    dispatcher: Dispatcher
  ) throws {
    self.id = id
    self.exchange = exchange
    self.target = target
    self.endpoint = endpoint
    self.dispatcher = dispatcher
    bodyEnded = exchange.request.framing == .none
    if ProgressStream.isWanted(by: exchange.request) { progress = ProgressStream() }
    deadline = try RequestDeadline(exchange.request, arrival: exchange.arrival)
  }

  /// Invocations of one event loop share their connections to workers.
  var lane: Int { Int(bitPattern: ObjectIdentifier(exchange.eventLoop)) }

  var isOnLoop: Bool { exchange.eventLoop.inEventLoop }

  /// Runs `body` on the invocation's event loop: now, if that is where we are.
  func onLoop(_ body: @escaping (Invocation) -> Void) {
    let loop = exchange.eventLoop
    if loop.inEventLoop { return body(self) }
    nonisolated(unsafe) let work = body
    nonisolated(unsafe) let invocation = self
    loop.execute { work(invocation) }
  }

  /// Begins its life: with a body on its way it is received first.
  func begin() {
    if deadline.instant != nil {
      // A weak reference makes every other one dearer, so only where it is needed.
      deadline.schedule(on: exchange.eventLoop) { [weak self] in self?.deadlinePassed() }
    }
    if bodyEnded { submit() }
  }

  /// Asks for a worker.
  func submit() {
    state = .waiting
    endpoint.submit(self)
    isAnnounced = false
  }

  /// Its body will not come any more.
  func withdrawAnnouncement() {
    if isAnnounced { endpoint.withdrawAnnouncement() }
    isAnnounced = false
  }

  // From the endpoint.

  /// - Parameter isAhead: whether the worker is at another request yet.
  func run(
    on worker: any WorkerHandle, _ kind: FunctionSchedule.StartKind, _ timing: FunctionEndpoint.StartTiming,
    isAhead: Bool
  ) {
    guard case .waiting = state else { return endpoint.finished(self, on: worker.id) }
    guard !wasRecalledEarly(by: worker) else { return endpoint.withdrew(self, from: worker) }
    self.kind = kind
    self.timing = waitedForStart ? timing : FunctionEndpoint.StartTiming()
    runBegan = endpoint.clock.now
    lastByte = runBegan
    switch worker.connection(on: exchange.eventLoop) {
    case .ready(let connection): send(to: worker, connection)
    case .heldUp where isAhead:
      endpoint.heldUp(worker.id)
      endpoint.withdrew(self, from: worker)
    case .heldUp, .none: connect(to: worker)
    }
  }

  /// Whether the request was the first of its worker, and waited until that had loaded.
  var waitedForStart: Bool { kind == .zygote || kind == .cold }

  private func wasRecalledEarly(by worker: any WorkerHandle) -> Bool {
    defer { recalledEarly = nil }
    return recalledEarly == worker.id
  }

  /// The schedule wants it back from a worker that has not begun it. Whether that is so the worker knows.
  func recall(from worker: any WorkerHandle) {
    switch state {
    case .waiting, .connecting: recalledEarly = worker.id
    case .running(let current, let connection), .cancelling(let current, let connection):
      guard current.id == worker.id, !connection.isAt(self), !isRecalled else { return }
      isRecalled = true
      endpoint.expectBack(self)
      worker.withdraw(copy: copyName)
    case .receiving, .done: break
    }
  }

  /// What its worker knows the last copy by.
  var copyName: String { attempt <= 1 ? exchange.requestID : "\(exchange.requestID)/\(attempt)" }

  private func connect(to worker: any WorkerHandle) {
    state = .connecting(worker)
    worker.connect(on: exchange.eventLoop).assumeIsolated().whenComplete { [self] result in
      switch (state, result) {
      case (.connecting, .success(let connection)):
        if wasRecalledEarly(by: worker) {
          state = .waiting
          worker.recycle(connection)
          return endpoint.withdrew(self, from: worker)
        }
        send(to: worker, connection)
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
    if case .retired = rejection, takesAnotherRoute() { return }
    fail(dispatcher.error(for: rejection, of: endpoint))
  }

  /// Another version serves now: the request waits for a worker of that one, unless it has nothing for it.
  private func takesAnotherRoute() -> Bool {
    do {
      let next = try dispatcher.route(exchange, endpoint.version.name.rawValue[...])
      guard next.endpoint !== endpoint else { return false }
      (endpoint, target) = next
      isAnnounced = false
      endpoint.submit(self)
    } catch let error as HearthError where error.code != .functionNotFound && error.code != .shuttingDown {
      fail(error)
    } catch {
      return false
    }
    return true
  }

  private func send(to worker: any WorkerHandle, _ connection: WorkerConnection) {
    state = .running(worker, connection)
    attempt += 1
    isRecalled = false
    let request = exchange.request
    let isCoalesced = bodyEnded && heldBytes <= Invocation.coalescedMax
    // A body that is there whole needs no chunks.
    let framing = bodyEnded ? (heldBytes > 0 ? .length(heldBytes) : request.framing.withoutChunks) : request.framing
    var head = ByteBuffer()
    head.reserveCapacity(512 + (isCoalesced ? heldBytes : 0))
    // The runtime's workers speak nothing else; a program may.
    let allowsUpgrade = request.upgrade != nil && !endpoint.version.isHandler
    HeadWriter.write(
      request, target: target, framing: framing, passesUpgrade: allowsUpgrade, requestStamp, into: &head)
    if isCoalesced {
      for bytes in held { head.writeImmutableBuffer(bytes) }
    }
    connection.begin(
      self, head: head, method: request.method, isChunked: framing == .chunked, allowsUpgrade: allowsUpgrade,
      answerID: endpoint.version.isHandler ? exchange.requestID : nil)
    // A connection that ended unnoticed fails at once, and this is waiting again.
    guard case .running = state else { return }
    if !isCoalesced {
      for bytes in held { connection.sendBody(bytes) }
    }
    if bodyEnded { connection.endBody() } else { exchange.setBodyPaused(!connection.isWritable) }
    connection.flush()
  }

  private var requestStamp: RequestStamp {
    let timeout = deadline.remaining(now: runBegan, limit: endpoint.requestTimeout)
    return RequestStamp(
      requestID: exchange.requestID, attempt: attempt, timeout: timeout.map { Int($0.nanoseconds / 1_000_000) })
  }

  // Endings.

  /// No byte of it reached the worker, which is of no use any more.
  func bounce(off worker: any WorkerHandle) {
    state = .waiting
    endpoint.returned(self, from: worker)
  }

  /// The worker's answer is of no interest any more.
  func cancel(_ worker: any WorkerHandle, _ connection: WorkerConnection) {
    state = .cancelling(worker, connection)
    guard connection.isAt(self) else { return recall(from: worker) }
    stopWork(worker, connection)
  }

  /// Tells the worker to stop what it does for this request, and makes sure that it does.
  func stopWork(_ worker: any WorkerHandle, _ connection: WorkerConnection) {
    connection.setReadPaused(false)
    guard endpoint.version.isHandler, bodyEnded, !isTunnel else {
      // A program has no way to be told but this; a handler that waits for the rest of a body has none either.
      state = .done
      connection.abandon(self)
      return endpoint.finished(self, on: worker.id)
    }
    worker.cancel(request: exchange.requestID)
    grace = exchange.eventLoop.assumeIsolated().scheduleTask(in: Invocation.cancelGrace) { [self] in
      guard case .cancelling(let worker, let connection) = state else { return }
      state = .done
      worker.kill()
      // Before those behind it come back: they must not go to this worker again.
      endpoint.finished(self, on: worker.id, isWorkerLost: true)
      connection.abandon(self)
    }
  }

  /// The worker is done with it.
  func finish() {
    state = .done
    grace?.cancel()
    grace = nil
  }

  func fail(_ error: HearthError) {
    state = .done
    answer(with: error)
  }

  /// Tells the client what went wrong; what becomes of the worker's work is another matter.
  func answer(with error: HearthError) {
    deadline.cancel()
    guard let progress, progress.hasBegun, !responseBegan || progress.isCollecting else {
      return exchange.fail(error, source: .gateway, stamp)
    }
    exchange.noteFailure(error.code)
    exchange.write(ProgressStream.event(error, request: exchange.requestID))
    exchange.end()
  }

  /// What the arrival log keeps of it; nil when no worker had it.
  func recorded(until now: HearthInstant) -> ArrivalRecord? {
    guard runBegan.nanoseconds != 0 else { return nil }
    return ArrivalRecord(
      arrival: exchange.arrival.nanoseconds, waited: runBegan.nanoseconds - exchange.arrival.nanoseconds,
      duration: now.nanoseconds - runBegan.nanoseconds, wasCold: waitedForStart)
  }

  var stamp: ResponseStamp {
    var stamp = ResponseStamp(requestID: exchange.requestID, version: endpoint.shortDigest)
    let hasRun = runBegan.nanoseconds != 0
    let waited = (hasRun ? runBegan : endpoint.clock.now).nanoseconds - exchange.arrival.nanoseconds
    stamp.spawn = timing.spawn.nanoseconds
    stamp.load = timing.load.nanoseconds
    stamp.queue = waited - stamp.spawn - stamp.load
    if hasRun {
      stamp.start = kind.rawValue
      if endpoint.model != nil { stamp.modelState = waitedForStart ? timing.modelState : "hit" }
    }
    stamp.execution = executionTime
    return stamp
  }
}

@available(*, unavailable)
extension Invocation: Sendable {}
