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
      public var name: ModelName
      /// The file or folder in the bundle.
      public var path: String
      public var settings: ModelSettings
    }
  }

  /// The bundle's models; nil where the function is not one of many models. Throws `spec_file_missing`, or
  /// `spec_invalid` where two have one name.
  public func models(in folder: String) throws -> [Model]? {
    switch models {
    case nil: return nil
    case .list(let entries):
      return try entries.map { try Model(name: $0.name, path: "\(folder)/\($0.path)", settings: $0.settings) }
    case .folder(let path):
      let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(path)")) ?? []
      let models = try names.filter { !$0.hasPrefix(".") }.sorted().map { file in
        try Model(name: ModelName(FunctionSpec.modelName(of: file)), path: "\(folder)/\(path)/\(file)")
      }
      for (one, next) in zip(models, models.dropFirst()) where one.name == next.name {
        throw HearthError(
          .specInvalid, "Two models of the folder '\(path)' are called '\(one.name)'.",
          hint: "Put the files of one model into a folder of their own.")
      }
      return models
    }
  }

  /// A file's or folder's name without its extension.
  public static func modelName(of file: String) -> String {
    guard let dot = file.lastIndex(of: "."), dot != file.startIndex else { return file }
    return String(file[..<dot])
  }
}
