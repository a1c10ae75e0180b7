import Foundation
import HearthCore
import HearthWorkerProtocol
import Logging
import NIOCore

/// The process that workers of one environment and preload list are forked from. Used on the host's loop only.
final class Zygote {
  struct Key: Hashable {
    let environment: PythonEnvironment
    let preload: [String]
  }

  enum State {
    /// Imports run; launches wait.
    case starting([() -> Void])
    case ready(forkable: Bool)
    case ended(reason: String)
  }

  /// 5 min: importing the largest libraries from a slow disk takes one.
  private static let preloadTimeout = TimeAmount.minutes(5)

  let key: Key
  private(set) var state = State.starting([])
  private(set) var missingIsolation: [String: String] = [:]
  private(set) var warning: String?
  private(set) var pid: pid_t = 0
  private var control: ControlChannel?
  private let report: (ZygoteReport) -> Void
  private let ended: (Zygote) -> Void

  /// - Parameters:
  ///   - report: gets `started` and `exited` of workers.
  ///   - ended: the process is gone, and its workers with it.
  init(
    _ key: Key, runtime: String, log: FunctionLog, loop: any EventLoop,
    report: @escaping (ZygoteReport) -> Void, ended: @escaping (Zygote) -> Void
  ) throws {
    self.key = key
    self.report = report
    self.ended = ended
    let sockets = try DescriptorPair.sockets()
    let output: DescriptorPair
    do {
      output = try DescriptorPair.pipe()
    } catch {
      close(sockets.ours)
      close(sockets.theirs)
      throw error
    }
    let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
    defer { for descriptor in [null, sockets.theirs, output.theirs] { close(descriptor) } }
    LogPipe.open(output.ours, on: loop, log: log, worker: { nil })
    // Without -S an environment's packages are visible; the base interpreter's own must not be.
    let flags = key.environment.hasPackages ? ["-I"] : ["-I", "-S"]
    pid = try ChildProcess.spawn(
      [key.environment.python] + flags + ["\(runtime)/hearth_runtime/__main__.py", "zygote"] + key.preload,
      environment: Zygote.variables, directory: "/",
      descriptors: [null, output.theirs, output.theirs, sockets.theirs])
    // Every call back happens on the loop, where this object lives.
    nonisolated(unsafe) let zygote = self
    try ControlChannel.open(
      sockets.ours, on: loop, received: { zygote.received($0) }, closed: { zygote.controlClosed() }
    ).whenSuccess { zygote.control = $0 }
    loop.assumeIsolated().scheduleTask(in: Zygote.preloadTimeout) { [weak self] in self?.endIfStarting() }
  }

  private func endIfStarting() {
    guard case .starting = state else { return }
    settle(.ended(reason: "its preload took longer than five minutes"))
    end()
  }

  /// What every zygote and worker inherits: nothing of the gateway's own secrets.
  private static var variables: [String: String] {
    let inherited = ProcessInfo.processInfo.environment
    var variables = ["PATH": inherited["PATH"] ?? "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"]
    for name in ["TZ", "LD_LIBRARY_PATH", "CUDA_HOME"] { variables[name] = inherited[name] }
    // numpy's BLAS would start threads at import, and threads do not survive a fork.
    variables["OPENBLAS_NUM_THREADS"] = "1"
    variables["OMP_NUM_THREADS"] = "1"
    for name in ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"] { variables[name] = inherited[name] }
    return variables
  }

  /// Runs `launch` once the zygote is ready or has ended; look at `state` in it.
  func whenSettled(_ launch: @escaping () -> Void) {
    if case .starting(let waiting) = state { state = .starting(waiting + [launch]) } else { launch() }
  }

  @discardableResult
  func start(_ launch: WorkerLaunch, descriptors: [Int32]) -> Bool {
    control?.send(ZygoteCommand.start(launch), descriptors: descriptors) ?? false
  }

  func signal(_ worker: WorkerID, _ number: Int32) {
    control?.send(ZygoteCommand.signal(worker: worker.description, number: number))
  }

  /// Ends the zygote and every worker forked from it.
  func end() { control?.close() }

  private func received(_ line: ByteBuffer) {
    guard let message = try? ControlCodec.decode(ZygoteReport.self, from: line) else { return }
    switch message {
    case .ready(_, _, let forkable, let warning, let missing):
      missingIsolation = missing
      self.warning = warning
      settle(.ready(forkable: forkable))
    case .failed(let reason): settle(.ended(reason: reason))
    case .started, .exited: report(message)
    }
  }

  private func settle(_ next: State) {
    guard case .starting(let waiting) = state else { return }
    state = next
    for launch in waiting { launch() }
  }

  private func controlClosed() {
    // The zygote exits when its control socket closes; the signal is for one that hangs.
    kill(pid, SIGKILL)
    var status: Int32 = 0
    waitpid(pid, &status, 0)
    settle(.ended(reason: "the Python environment's interpreter ended unexpectedly"))
    if case .ready = state { state = .ended(reason: "its zygote ended") }
    ended(self)
  }
}
