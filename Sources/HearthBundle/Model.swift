import Foundation
import HearthCore

/// One model of a function that has many: where its weights are, and how it is kept.
public struct Model: Hashable, Sendable {
  public var name: ModelName
  /// The file or folder of its weights.
  public var path: String
  /// The size of its files, in bytes.
  public var bytes: Int64
  public var settings = ModelSettings()
  /// Whether it was added to the function after a deploy, as opposed to being part of the bundle.
  public var isAdded = false

  public init(name: ModelName, path: String, settings: ModelSettings = ModelSettings(), isAdded: Bool = false) throws {
    self.name = name
    self.path = path
    self.settings = settings
    self.isAdded = isAdded
    bytes = try Model.size(of: path)
  }

  private static func size(of path: String) throws -> Int64 {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw HearthError(.specFileMissing, "A model's file is not there.", cause: path)
    }
    guard status.st_mode & S_IFMT == S_IFDIR else { return Int64(status.st_size) }
    return try FileManager.default.contentsOfDirectory(atPath: path).reduce(0) { try $0 + size(of: "\(path)/\($1)") }
  }
}

/// How a model is kept, as its function's author or whoever added it says.
public struct ModelSettings: Hashable, Sendable {
  /// What it takes on its device; nil: as its files let expect, until it was measured.
  public var memory: ByteSize?
  /// Whether it is loaded with the function and never makes room.
  public var isPinned = false
  /// Models of lower priority make room before those of higher; from -100 to 100.
  public var priority = 0

  public static let priorities = -100...100

  public init(memory: ByteSize? = nil, isPinned: Bool = false, priority: Int = 0) {
    self.memory = memory
    self.isPinned = isPinned
    self.priority = priority
  }
}

extension FunctionSpec {
  /// The models that `models` names.
  public enum Models: Hashable, Sendable {
    /// Every file and folder directly in this folder of the bundle is a model, named for it.
    case folder(String)
    case list([Entry])

    public struct Entry: Hashable, Sendable {
      /// Nil: named for its file or folder.
      public var name: ModelName?
      /// The file or folder in the bundle.
      public var path: String
      public var settings: ModelSettings
    }
  }

  /// The bundle's models; nil where the function is not one of many models. Throws `spec_file_missing`, or
  /// `spec_invalid` where two have one name.
  public func models(in folder: String) throws -> [Model]? {
    let found: [Model]
    switch models {
    case nil: return nil
    case .list(let entries):
      found = try entries.map { entry in
        let path = "\(folder)/\(entry.path)"
        return try Model(name: entry.name ?? FunctionSpec.modelName(of: path), path: path, settings: entry.settings)
      }
    case .folder(let path):
      let root = "\(folder)/\(path)"
      guard let files = try? FileManager.default.contentsOfDirectory(atPath: root) else {
        throw HearthError(
          .specInvalid, "'models' names '\(path)', which is no folder.",
          hint: "Name a folder of models, or write a list: models: [{path: \(path)}].")
      }
      found = try files.filter { !$0.hasPrefix(".") }.sorted().map { file in
        try Model(name: FunctionSpec.modelName(of: "\(root)/\(file)"), path: "\(root)/\(file)")
      }
    }
    var names: Set<ModelName> = []
    for model in found where !names.insert(model.name).inserted {
      throw HearthError(
        .specInvalid, "Two models are called '\(model.name)'.",
        hint: "Give one of them a 'name', or put the files of one model into a folder of their own.")
    }
    return found
  }

  /// What a model is called that nobody has named: its folder's name, or its file's without the extension.
  private static func modelName(of path: String) throws -> ModelName {
    let last = String(path.split(separator: "/").last ?? "")
    var isFolder: ObjCBool = false
    guard !(FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue),
      let dot = last.lastIndex(of: "."), dot != last.startIndex
    else { return try ModelName(last) }
    return try ModelName(last[..<dot])
  }
}
