import Foundation
import GRDB
import HearthCore

/// Models that were added to a function after its deploy. They outlive its versions.
extension FunctionStore {
  public struct AddedModel: Sendable, Hashable {
    public let name: ModelName
    /// The bundle of its weights.
    public let digest: Digest
    public let memory: ByteSize?
    public let isPinned: Bool
    public let priority: Int

    public init(name: ModelName, digest: Digest, memory: ByteSize?, isPinned: Bool, priority: Int) {
      self.name = name
      self.digest = digest
      self.memory = memory
      self.isPinned = isPinned
      self.priority = priority
    }
  }

  public func addModel(_ model: AddedModel, to function: FunctionName) throws {
    try database.write { database in
      try database.execute(
        sql: """
          INSERT OR REPLACE INTO models (function, name, digest, memory, pinned, priority, added_at)
          VALUES (?, ?, ?, ?, ?, ?, ?)
          """,
        arguments: [
          function.rawValue, model.name.rawValue, model.digest.hex, model.memory?.bytes, model.isPinned,
          model.priority, Date().timeIntervalSince1970,
        ])
    }
  }

  /// Forgets a model; false when there was none of this name.
  public func removeModel(_ name: ModelName, from function: FunctionName) throws -> Bool {
    try database.write { database in
      try database.execute(
        sql: "DELETE FROM models WHERE function = ? AND name = ?", arguments: [function.rawValue, name.rawValue])
      return database.changesCount > 0
    }
  }

  public func models(of function: FunctionName) throws -> [AddedModel] {
    try database.read { database in
      try Row.fetchAll(
        database, sql: "SELECT * FROM models WHERE function = ? ORDER BY name", arguments: [function.rawValue]
      ).map { row in
        AddedModel(
          name: try ModelName(row["name"] as String), digest: try Digest(row["digest"]),
          memory: (row["memory"] as Int64?).map { ByteSize(bytes: $0) }, isPinned: row["pinned"],
          priority: row["priority"])
      }
    }
  }
}
