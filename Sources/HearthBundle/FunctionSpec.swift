import Foundation
import HearthCore
import HearthYAML

/// `function.yaml`: what a function is, checked.
public struct FunctionSpec: Sendable {
  /// What answers the requests.
  public enum Entry: Hashable, Sendable {
    /// A Python class: the file in the bundle and the class's name.
    case handler(file: String, className: String)
    /// A program that serves HTTP on the Unix socket named by `HEARTH_SOCKET`, and its arguments.
    case command([String])
  }

  /// How workers of a `handler` come to life.
  public enum Start: String, Sendable {
    case fork
    case spawn
  }

  /// How the models of a function are housed.
  public enum Isolation: String, Sendable {
    /// Each in a process of its own.
    case process
    /// All in one process, each with threads of its own.
    case shared
  }

  public struct Python: Hashable, Sendable {
    /// The requirements file in the bundle; nil for the standard library alone.
    public var requirements: String?
    /// Modules the zygote imports.
    public var preload: [String] = []
    public var start = Start.fork
  }

  /// How requests are gathered that wait at the same time, so that the author's code gets them together.
  public struct Batching: Hashable, Sendable {
    /// 128: what one worker gathers at most; it holds a thread for each, and for each of the batch behind.
    public static let sizes = 2...128
    /// 10 s: a request that waits for longer has another kind of queue.
    public static let waitMax = Duration.seconds(10)

    /// The most requests in one batch.
    public var sizeMax: Int
    /// How long the first request of a batch waits for others; zero takes those that are there.
    public var waitMax = Duration.zero

    /// Requests of two batches at a time: while one runs the next is gathered.
    var concurrency: Int { 2 * sizeMax }
  }

  /// A file that must be there before a worker starts.
  public struct File: Hashable, Sendable {
    public var path: String
    public var source: String?
    public var sha256: Digest?
  }

  public struct Resources: Hashable, Sendable {
    /// Processor cores a worker is meant to use; sets the thread counts of numeric libraries. 0: not set.
    public var cpu = 1.0
    public var memory: ByteSize?
    /// 1 where a worker needs a GPU.
    public var gpu = 0
    /// What a worker takes of its GPU; nil: as its model's files let expect, or until it was measured.
    public var gpuMemory: ByteSize?
    /// Size of a worker's private temporary folder.
    public var temporary = ByteSize.mib(256)
  }

  public static let fileName = "function.yaml"

  public var name: FunctionName
  public var description: String?
  public var entry: Entry
  public var python = Python()
  public var files: [File] = []
  /// The models of a function that has many, loaded as they are asked for; nil where it has none or loads its own.
  public var models: Models?
  /// How they are housed; nil: as suits their device.
  public var isolation: Isolation?
  /// Nil: each request by itself.
  public var batching: Batching?
  public var resources = Resources()
  public var policy = FunctionPolicy()
  /// The knobs that `function.yaml` itself sets.
  public var policyKeys: Set<String> = []
  public var environment: [String: String] = [:]
  /// Whether a request may be given to a second worker when the first died before it had answered.
  public var idempotent = false
  /// Whether workers may use the network.
  public var network = false
  /// The author's own values, as JSON text of an object.
  public var config = "{}"

  /// How its models are housed: on a GPU they share what a process needs of it, which is a few hundred MiB for each.
  public var housing: Isolation { isolation ?? (resources.gpu > 0 ? .shared : .process) }

  public static func ofFolder(_ folder: String) throws -> FunctionSpec {
    var text = ""
    do {
      text = try String(contentsOfFile: "\(folder)/\(fileName)", encoding: .utf8)
    } catch {
      throw HearthError(
        .specMissing, "The bundle has no readable \(fileName) at its top.",
        hint: "Run 'hearth bundle init' for one to start from.")
    }
    return try FunctionSpec(parsing: text)
  }

  /// Whether each file that the spec names, and that no source provides, is there.
  public func checkFiles(in folder: String) throws {
    var needed = files.filter { $0.source == nil }.map(\.path)
    if case .handler(let file, _) = entry { needed.append(file) }
    if let requirements = python.requirements { needed.append(requirements) }
    let sourced = Set(files.filter { $0.source != nil }.map(\.path))
    switch models {
    case .folder(let path): needed.append(path)
    case .list(let entries): needed += entries.map(\.path).filter { !sourced.contains($0) }
    case nil: break
    }
    for path in needed where access("\(folder)/\(path)", R_OK) != 0 {
      throw HearthError(
        .specFileMissing, "\(FunctionSpec.fileName) names '\(path)', which is not in the bundle.",
        hint: "Add the file, or correct the name.")
    }
    // Two of one name, or a folder that is none. Those with a source cannot be looked at yet.
    if sourced.isEmpty { _ = try models(in: folder) }
  }
}
