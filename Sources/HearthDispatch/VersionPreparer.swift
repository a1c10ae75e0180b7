import Foundation
import HearthBundle
import HearthCore
import HearthWorker
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// Brings a bundle to where workers can be started from it: weights fetched, environment built, zygote up.
public final class VersionPreparer: Sendable {
  /// Tells how the preparation goes, in words for people.
  public typealias Progress = @Sendable (String) -> Void

  public let catalog: BundleCatalog
  private let environments: PythonEnvironments
  private let host: LocalHost
  private let logFolder: String
  /// One for each function, whatever its versions: two would rotate the file under each other.
  private let logs = NIOLockedValueBox<[FunctionName: FunctionLog]>([:])

  public init(catalog: BundleCatalog, environments: PythonEnvironments, host: LocalHost, logFolder: String) {
    self.catalog = catalog
    self.environments = environments
    self.host = host
    self.logFolder = logFolder
  }

  /// Prepares a version, to be released afterwards.
  ///
  /// - Parameters:
  ///   - added: models that were added to the function; they go before those of the bundle.
  ///   - waits: whether to wait until the zygote has imported its modules, and fail if it cannot.
  public func prepare(
    _ name: FunctionName, _ digest: Digest, overrides: [String: String], added: [Model] = [], waits: Bool = true,
    progress: @escaping Progress
  ) async throws -> DeployedVersion {
    let spec = try catalog.spec(of: digest)
    let policy = try spec.policy.overridden(by: overrides)
    if spec.models != nil { try policy.validateForModels() }
    try checkDevices(spec)
    let folder = try catalog.folder(of: digest)
    // Downloads and installers block for minutes: not on the threads that Swift's tasks share.
    let environment = try await NIOThreadPool.singleton.runIfActive { [self] in
      try catalog.fetchSources(of: digest, spec) { path, moved, total in
        progress(Self.describe(path, moved, total))
      }
      return try builtEnvironment(for: spec, in: folder, progress: progress)
    }
    var version = DeployedVersion(
      name: name, digest: digest, spec: spec, policy: policy, folder: folder,
      environment: environment, log: log(of: name))
    if let own = try spec.models(in: folder) {
      let names = Set(added.map(\.name))
      version.modelsFolder = try catalog.modelsFolder(of: name)
      version.models = added + own.filter { !names.contains($0.name) }
    }
    progress("Preparing the interpreter")
    let isPrepared = host.prepare(environment, preload: version.preload)
    do {
      if waits { try await isPrepared.get() }
    } catch {
      release(version)
      throw error
    }
    return version
  }

  /// The version is served now, or will not be: its zygote is kept by the functions that are served alone.
  public func release(_ version: DeployedVersion) {
    host.release(version.environment, preload: version.preload)
  }

  public func log(of name: FunctionName) -> FunctionLog {
    logs.withLockedValue { logs in
      if let log = logs[name] { return log }
      let log = FunctionLog(path: "\(logFolder)/\(name).log")
      logs[name] = log
      return log
    }
  }

  /// Lets zygotes end that none of these versions needs.
  public func retainZygotes(of versions: [DeployedVersion]) {
    host.retainZygotes(versions.map { ($0.environment, $0.preload) })
  }

  /// What isolation this machine lacks, by feature; nil while unknown.
  public var missingIsolation: [String: String]? { host.missingIsolation }

  private func builtEnvironment(
    for spec: FunctionSpec, in folder: String, progress: (String) -> Void
  ) throws -> PythonEnvironment {
    guard let requirements = spec.python.requirements else { return environments.standard }
    let path = "\(folder)/\(requirements)"
    return try environments.environment(
      key: SHA256.digest(ofFile: path), requirements: path, progress: progress)
  }

  private func checkDevices(_ spec: FunctionSpec) throws {
    guard spec.resources.gpu > 0 else { return }
    guard !host.devices.isEmpty else {
      throw HearthError(
        .resourceUnavailable, "The function asks for a GPU, and this machine has none.",
        hint: "Deploy it to a machine that has one, or try it on a simulated one: 'simulated' in hearth.yaml.")
    }
  }

  private static func describe(_ path: String, _ moved: Int64, _ total: Int64) -> String {
    let done = ByteSize(bytes: moved).rounded
    return total > 0
      ? "Fetching \(path): \(done) of \(ByteSize(bytes: total).rounded) (\(moved * 100 / total) %)"
      : "Fetching \(path): \(done)"
  }
}
