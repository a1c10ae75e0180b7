import Foundation
import GRDB
import HearthCore

/// What must outlive a restart: which functions are deployed, in which version, with which live policy values. SQLite
/// in WAL mode with full synchronisation, so that what was acknowledged survives a crash of the machine.
public struct FunctionStore: Sendable {
  /// One deployed function.
  public struct Function: Sendable, Hashable {
    public let name: FunctionName
    public let digest: Digest
    /// Counts a function's versions from 1.
    public let number: Int
    public let deployedAt: Date
    /// Values set with `hearth policy`, by knob.
    public let overrides: [String: String]
  }

  public struct Version: Sendable, Hashable {
    public let digest: Digest
    public let number: Int
    public let deployedAt: Date
  }

  let database: DatabaseQueue

  /// Opens the database, creating it and bringing it to this version's form.
  public init(path: String) throws {
    var configuration = GRDB.Configuration()
    configuration.journalMode = .wal
    configuration.busyMode = .timeout(5)
    database = try DatabaseQueue(path: path, configuration: configuration)
    // Set here: GRDB sets NORMAL itself when it opens a database in WAL mode.
    try database.inDatabase { try $0.execute(sql: "PRAGMA synchronous = FULL") }
    try FunctionStore.migrator.migrate(database)
  }

  private static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("functions") { database in
      try database.execute(
        sql: """
          CREATE TABLE versions (
            function TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, deployed_at REAL NOT NULL,
            PRIMARY KEY (function, number)) STRICT;
          CREATE TABLE functions (
            name TEXT PRIMARY KEY NOT NULL, number INTEGER NOT NULL, overrides TEXT NOT NULL DEFAULT '{}',
            FOREIGN KEY (name, number) REFERENCES versions (function, number)) STRICT;
          """)
    }
    migrator.registerMigration("models") { database in
      try database.execute(
        sql: """
          CREATE TABLE models (
            function TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, memory INTEGER, pinned INTEGER NOT NULL,
            priority INTEGER NOT NULL, added_at REAL NOT NULL, PRIMARY KEY (function, name)) STRICT;
          """)
    }
    return migrator
  }

  /// Makes a digest the function's version, in one transaction. A digest deployed before keeps its number.
  @discardableResult
  public func deploy(_ name: FunctionName, _ digest: Digest) throws -> Version {
    try database.write { database in
      let known = try Row.fetchOne(
        database, sql: "SELECT number, deployed_at FROM versions WHERE function = ? AND digest = ?",
        arguments: [name.rawValue, digest.hex])
      let version: Version
      if let known {
        version = Version(
          digest: digest, number: known["number"], deployedAt: Date(timeIntervalSince1970: known["deployed_at"]))
      } else {
        let highest = try Int.fetchOne(
          database, sql: "SELECT max(number) FROM versions WHERE function = ?", arguments: [name.rawValue])
        version = Version(digest: digest, number: (highest ?? 0) + 1, deployedAt: Date())
        try database.execute(
          sql: "INSERT INTO versions (function, number, digest, deployed_at) VALUES (?, ?, ?, ?)",
          arguments: [name.rawValue, version.number, digest.hex, version.deployedAt.timeIntervalSince1970])
      }
      try database.execute(
        sql: """
          INSERT INTO functions (name, number) VALUES (?, ?)
          ON CONFLICT (name) DO UPDATE SET number = excluded.number
          """,
        arguments: [name.rawValue, version.number])
      return version
    }
  }

  public func setOverrides(_ name: FunctionName, _ overrides: [String: String]) throws {
    let text = String(decoding: try JSONEncoder().encode(overrides), as: UTF8.self)
    try database.write { database in
      try database.execute(
        sql: "UPDATE functions SET overrides = ? WHERE name = ?", arguments: [text, name.rawValue])
    }
  }

  public func delete(_ name: FunctionName) throws {
    try database.write { database in
      try database.execute(sql: "DELETE FROM functions WHERE name = ?", arguments: [name.rawValue])
      try database.execute(sql: "DELETE FROM versions WHERE function = ?", arguments: [name.rawValue])
      try database.execute(sql: "DELETE FROM models WHERE function = ?", arguments: [name.rawValue])
    }
  }

  public func functions() throws -> [Function] {
    try database.read { database in
      try Row.fetchAll(
        database,
        sql: """
          SELECT f.name, f.number, f.overrides, v.digest, v.deployed_at FROM functions f
          JOIN versions v ON v.function = f.name AND v.number = f.number ORDER BY f.name
          """
      ).map { row in
        let overrides = try JSONDecoder().decode([String: String].self, from: Data((row["overrides"] as String).utf8))
        return Function(
          name: try FunctionName(row["name"]), digest: try Digest(row["digest"]), number: row["number"],
          deployedAt: Date(timeIntervalSince1970: row["deployed_at"]), overrides: overrides)
      }
    }
  }

  public func function(_ name: FunctionName) throws -> Function? { try functions().first { $0.name == name } }

  /// A function's versions, newest first.
  public func versions(_ name: FunctionName) throws -> [Version] {
    try database.read { database in
      try Row.fetchAll(
        database, sql: "SELECT number, digest, deployed_at FROM versions WHERE function = ? ORDER BY number DESC",
        arguments: [name.rawValue]
      ).map { row in
        Version(
          digest: try Digest(row["digest"]), number: row["number"],
          deployedAt: Date(timeIntervalSince1970: row["deployed_at"]))
      }
    }
  }
}
