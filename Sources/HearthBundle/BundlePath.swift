import Foundation
import HearthCore

/// The rules for paths in a bundle: they come from outside and become files on the gateway's disk.
enum BundlePath {
  /// 1,024 bytes: far below PATH_MAX with the data folder in front.
  static let lengthMax = 1024

  /// Throws the code for whatever is wrong with the path.
  static func check(_ path: String) throws {
    let shown = path.printable(limit: 120)
    guard !path.isEmpty, path.utf8.count <= lengthMax else {
      throw HearthError(.archivePathInvalid, "The path '\(shown)' is empty or longer than \(lengthMax) bytes.")
    }
    guard !path.hasPrefix("/") else {
      throw HearthError(.archiveAbsolutePath, "The path '\(shown)' is absolute.")
    }
    for scalar in path.unicodeScalars {
      guard scalar.value >= 0x20, scalar.value != 0x7F, scalar != "\\", scalar.value != 0xFFFD else {
        throw HearthError(.archivePathInvalid, "The path '\(shown)' has a character that is not allowed.")
      }
    }
    for part in path.split(separator: "/", omittingEmptySubsequences: false) {
      if part == ".." { throw HearthError(.archiveParentPath, "The path '\(shown)' leaves the bundle's folder.") }
      guard !part.isEmpty, part != ".", part.utf8.count <= 255 else {
        throw HearthError(.archivePathInvalid, "The path '\(shown)' has a part that is empty, '.' or too long.")
      }
    }
  }
}

/// The paths of one bundle: refuses a second one that is the same to a file system that folds case or Unicode form,
/// and one that is both a file and a folder.
struct BundlePathSet {
  private var files: Set<String> = []
  private var folders: Set<String> = []

  mutating func insert(_ path: String) throws {
    try BundlePath.check(path)
    let folded = path.precomposedStringWithCanonicalMapping.lowercased()
    let parts = folded.split(separator: "/").dropLast()
    guard files.insert(folded).inserted, !folders.contains(folded) else { throw duplicate(path) }
    var parent = ""
    for part in parts {
      parent += parent.isEmpty ? String(part) : "/\(part)"
      guard !files.contains(parent) else { throw duplicate(path) }
      folders.insert(parent)
    }
  }

  private func duplicate(_ path: String) -> HearthError {
    HearthError(
      .archiveDuplicatePath, "The path '\(path.printable(limit: 120))' stands twice, perhaps in another case.")
  }
}

/// The files below a folder, as relative paths in byte order.
public enum FolderListing {
  /// Names that never belong to a bundle.
  private static let ignored: Set<String> = [".git", ".DS_Store", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache"]

  /// The files that a folder gives to a bundle, as paths below it, sorted. Throws for links and special files.
  public static func files(of folder: String) throws -> [String] {
    var result: [String] = []
    try list(folder, prefix: "", into: &result)
    return result.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  private static func list(_ folder: String, prefix: String, into result: inout [String]) throws {
    guard let directory = opendir(folder) else { throw unusable(folder, "be listed") }
    defer { closedir(directory) }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name == "." || name == ".." || ignored.contains(name) || name == BundleManifest.archivePath { continue }
      let path = prefix + name
      var status = stat()
      guard lstat("\(folder)/\(name)", &status) == 0 else { throw unusable(path, "be read") }
      switch status.st_mode & S_IFMT {
      case S_IFDIR: try list("\(folder)/\(name)", prefix: "\(path)/", into: &result)
      case S_IFREG: result.append(path)
      case S_IFLNK:
        throw HearthError(
          .archiveLink, "'\(path)' is a symbolic link.", hint: "Put the file itself into the bundle's folder.")
      default: throw HearthError(.archiveSpecialFile, "'\(path)' is neither a file nor a folder.")
      }
    }
  }
}
