import Foundation
import HearthCore

/// Models that were added to a function: each function has a folder of them, which its workers see and no others do.
extension BundleCatalog {
  /// The folder of a function's added models, made if it is not there.
  public func modelsFolder(of function: FunctionName) throws -> String {
    let folder = "\(root)/models/\(function)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    return folder
  }

  /// Puts weights that were uploaded as a bundle into the function's folder, unless they are there. Returns the model's
  /// path: its one file, or its folder.
  public func place(_ weights: Digest, as model: ModelName, of function: FunctionName) throws -> String {
    let target = "\(try modelsFolder(of: function))/\(model)/\(weights.short)"
    let source = try folder(of: weights)
    if access(target, F_OK) != 0 {
      let partial = "\(target).partial"
      removeTree(partial)
      try link(source, partial)
      guard rename(partial, target) == 0 else {
        throw HearthError(.internalError, "A model could not be placed.", cause: String(cString: strerror(errno)))
      }
    }
    let names = try FileManager.default.contentsOfDirectory(atPath: source)
    var status = stat()
    guard names.count == 1, stat("\(source)/\(names[0])", &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      return target
    }
    return "\(target)/\(names[0])"
  }

  /// Takes a model's files out of its function's folder. Processes that have them open keep them.
  public func unplace(_ model: ModelName, of function: FunctionName) {
    removeTree("\(root)/models/\(function)/\(model)")
  }

  /// Takes all models out of a function's folder.
  public func unplaceModels(of function: FunctionName) { removeTree("\(root)/models/\(function)") }

  /// Takes the models of all other functions away.
  public func retainModels(of functions: Set<String>) {
    for name in (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/models")) ?? []
    where !functions.contains(name) {
      removeTree("\(root)/models/\(name)")
    }
  }

  /// The same tree of folders with hard links to the same files.
  private func link(_ source: String, _ target: String) throws {
    try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
    for name in try FileManager.default.contentsOfDirectory(atPath: source) {
      var status = stat()
      let (from, to) = ("\(source)/\(name)", "\(target)/\(name)")
      guard lstat(from, &status) == 0 else { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        try link(from, to)
      } else if Glibc.link(from, to) != 0, errno != EEXIST {
        throw HearthError(.internalError, "A model could not be placed.", cause: String(cString: strerror(errno)))
      }
    }
  }
}
