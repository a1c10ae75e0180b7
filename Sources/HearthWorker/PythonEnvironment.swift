import Foundation
import HearthCore

/// An interpreter with a set of packages: the standard library alone, or what a requirements file names.
public struct PythonEnvironment: Hashable, Sendable {
  /// The interpreter to run.
  public let python: String
  /// Whether packages outside the standard library are visible.
  public let hasPackages: Bool
}

/// Builds Python environments once for each set of requirements, with venv and pip, and keeps them.
public struct PythonEnvironments: Sendable {
  private let folder: String
  private let base: String
  private let variables: [String: String]

  /// - Parameters:
  ///   - folder: where environments are kept.
  ///   - python: the interpreter to build them with, by name or path. Throws `configuration_invalid` when it is
  ///     missing or older than 3.11.
  ///   - variables: the installer's process environment (proxies, index addresses).
  public init(folder: String, python: String, variables: [String: String]) throws {
    guard let path = ChildProcess.find(python, path: variables["PATH"] ?? "/usr/bin:/bin") else {
      throw HearthError(
        .configurationInvalid, "The Python interpreter '\(python)' was not found.",
        hint: "Install Python 3.11 or later, or set 'python' in hearth.yaml.")
    }
    var lines: [String] = []
    let check = "import sys; print(sys.executable); sys.exit(sys.version_info < (3, 11))"
    let status = try ChildProcess.run([path, "-I", "-c", check], environment: variables) { lines.append($0) }
    guard status == 0, let executable = lines.first else {
      throw HearthError(
        .configurationInvalid, "'\(python)' is not Python 3.11 or later.", hint: "Set 'python' in hearth.yaml.")
    }
    self.folder = folder
    base = executable
    self.variables = variables
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    for name in try FileManager.default.contentsOfDirectory(atPath: folder) where name.contains(".building-") {
      try? FileManager.default.removeItem(atPath: "\(folder)/\(name)")
    }
  }

  /// The environment without packages.
  public var standard: PythonEnvironment { PythonEnvironment(python: base, hasPackages: false) }

  /// The environment with these packages, built if it is not there. Blocks for as long as the installer takes.
  ///
  /// - Parameters:
  ///   - key: a digest of the requirements' text.
  ///   - requirements: the requirements file.
  ///   - progress: what the installer says, line by line.
  public func environment(
    key: Digest, requirements: String, progress: (String) -> Void
  ) throws -> PythonEnvironment {
    let target = "\(folder)/\(key.hex.prefix(24))"
    let environment = PythonEnvironment(python: "\(target)/bin/python", hasPackages: true)
    if access(environment.python, X_OK) == 0 { return environment }
    let building = "\(target).building-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: building) }
    progress("Creating a Python environment")
    try run([base, "-m", "venv", building], progress, "The Python environment could not be created")
    let pip = ["\(building)/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    try run(
      pip + ["install", "--progress-bar", "off", "-r", requirements], progress,
      "The requirements could not be installed")
    // pip writes byte code for the place it installs to; the interpreter finds everything relative to itself.
    guard rename(building, target) == 0 || access(environment.python, X_OK) == 0 else {
      throw HearthError(
        .internalError, "The Python environment could not be stored.", cause: String(cString: strerror(errno)))
    }
    return environment
  }

  private func run(_ arguments: [String], _ progress: (String) -> Void, _ problem: String) throws {
    var last: [String] = []
    let status = try ChildProcess.run(arguments, environment: variables) { line in
      progress(line)
      last.append(line)
      if last.count > 8 { last.removeFirst() }
    }
    guard status == 0 else {
      throw HearthError(
        .environmentFailed, "\(problem): \(last.joined(separator: " / "))",
        hint: "Try 'python3 -m pip install -r' with the same file.")
    }
  }
}
