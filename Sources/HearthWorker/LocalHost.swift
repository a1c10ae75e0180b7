import Foundation
import HearthCore
import HearthWorkerProtocol
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Runs workers as processes of this machine. All state lives on one event loop, apart from those of the requests.
public final class LocalHost: WorkerHost, @unchecked Sendable {
  // `zygotes` and `workers` are touched on `loop` only.
  private let loop: any EventLoop
  private let runtime: String
  private let directory: String
  private let zygoteLog: FunctionLog
  private let logger: Logger
  private var zygotes: [Zygote.Key: Zygote] = [:]
  private var workers: [WorkerID: LocalWorker] = [:]
  private var hasReportedIsolation = false
  private let isolation = NIOLockedValueBox<[String: String]?>(nil)

  /// - Parameters:
  ///   - runtime: the folder that holds `hearth_runtime`.
  ///   - directory: where workers get their private folders; short, since sockets lie in them.
  public init(loop: any EventLoop, runtime: String, directory: String, logs: String, logger: Logger) throws {
    self.loop = loop
    self.runtime = runtime
    self.directory = directory
    self.logger = logger
    zygoteLog = FunctionLog(path: "\(logs)/zygotes.log")
    try? FileManager.default.removeItem(atPath: directory)
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o711])
  }

  /// What isolation this machine lacks and why, by feature; nil until the first zygote has tried.
  public var missingIsolation: [String: String]? { isolation.withLockedValue { $0 } }

  /// Starts the zygote of an environment ahead of its first worker. Fails with the reason when its imports do.
  public func prepare(_ environment: PythonEnvironment, preload: [String]) -> EventLoopFuture<Void> {
    let promise = loop.makePromise(of: Void.self)
    loop.execute { [self] in
      do {
        let zygote = try zygote(Zygote.Key(environment: environment, preload: preload))
        zygote.whenSettled {
          if case .ended(let reason) = zygote.state {
            promise.fail(HearthError(.loadFailed, "The function cannot be loaded: \(reason)."))
          } else {
            promise.succeed()
          }
        }
      } catch {
        promise.fail(error)
      }
    }
    return promise.futureResult
  }

  /// Ends every zygote that none of these environments needs.
  public func retainZygotes(_ needed: [(environment: PythonEnvironment, preload: [String])]) {
    let keys = Set(needed.map { Zygote.Key(environment: $0.environment, preload: $0.preload) })
    loop.execute { [self] in
      for (key, zygote) in zygotes
      where !keys.contains(key) && !workers.values.contains(where: { $0.zygote === zygote }) {
        zygote.end()
      }
    }
  }

  public func start(
    _ plan: WorkerPlan, observer: @escaping WorkerObserver
  ) -> any WorkerHandle {
    let worker = LocalWorker(plan, directory: "\(directory)/\(plan.id)", loop: loop, observer: observer)
    loop.execute { [self] in
      workers[plan.id] = worker
      do {
        let zygote = try zygote(Zygote.Key(environment: plan.environment, preload: plan.preload))
        zygote.whenSettled { worker.launch(from: zygote) }
      } catch {
        worker.fail((error as? HearthError)?.message ?? "its process could not be started")
      }
      worker.whenGone { [self] in workers[plan.id] = nil }
    }
    return worker
  }

  /// Ends every zygote, and with them every worker that still runs.
  public func shutDown() -> EventLoopFuture<Void> {
    loop.submit { [self] in
      for zygote in zygotes.values { zygote.end() }
      zygotes.removeAll()
    }
  }

  private func zygote(_ key: Zygote.Key) throws -> Zygote {
    if let zygote = zygotes[key] {
      if case .ended = zygote.state {} else { return zygote }
    }
    let zygote = try Zygote(
      key, runtime: runtime, log: zygoteLog, loop: loop, report: { [self] in dispatch($0) },
      ended: { [self] in zygoteEnded(key) })
    zygotes[key] = zygote
    zygote.whenSettled { [self, unowned zygote] in reportIsolation(of: zygote) }
    return zygote
  }

  private func dispatch(_ report: ZygoteReport) {
    switch report {
    case .started(let worker, let pid):
      WorkerID(worker).flatMap { workers[$0] }?.processStarted(pid)
    case .exited(let worker, let status, let signal, _):
      WorkerID(worker).flatMap { workers[$0] }?.processExited(status: status, signal: signal)
    case .ready, .failed: break
    }
  }

  private func zygoteEnded(_ key: Zygote.Key) {
    guard let zygote = zygotes[key] else { return }
    for worker in workers.values where worker.zygote === zygote {
      worker.processExited(status: nil, signal: SIGKILL)
    }
    zygotes[key] = nil
  }

  private func reportIsolation(of zygote: Zygote) {
    guard case .ready = zygote.state else { return }
    if let warning = zygote.warning { logger.warning("zygote: \(warning)") }
    guard !hasReportedIsolation else { return }
    hasReportedIsolation = true
    isolation.withLockedValue { $0 = zygote.missingIsolation }
    for (feature, reason) in zygote.missingIsolation.sorted(by: { $0.key < $1.key }) {
      logger.warning("workers run without \(feature): \(reason)")
    }
  }
}
