import Foundation
import HearthBundle
import HearthConfiguration
import HearthCore

/// One of the functions that come with Hearth, to be copied.
struct Template {
  /// What belongs to the making of a template, not to the function: its page, and how its weights were made.
  private static let left: Set<String> = ["README.md", "make_weights.py", "weights.txt"]

  private let folder: String

  /// Throws `file_unusable` when there is no such template, or its weights were not made.
  init(_ name: String) throws {
    let templates = try ConfigurationFiles.templatesFolder()
    let names = try FileManager.default.contentsOfDirectory(atPath: templates)
      .filter { access("\(templates)/\($0)/\(FunctionSpec.fileName)", R_OK) == 0 }.sorted()
    guard names.contains(name) else {
      throw HearthError(
        .fileUnusable, "There is no template '\(name.printable(limit: 40))'.",
        hint: name.nearest(in: names).map { "Did you mean '\($0)'?" } ?? "There are \(names.joined(separator: ", ")).")
    }
    folder = "\(templates)/\(name)"
    do {
      let spec = try FunctionSpec.ofFolder(folder)
      try spec.checkFiles(in: folder)
      if case .command(let command) = spec.entry, command[0].contains("/"),
        access("\(folder)/\(command[0])", X_OK) != 0
      {
        throw HearthError(.specFileMissing, "'\(command[0])' is missing.")
      }
    } catch let error as HearthError where error.code == .specFileMissing {
      throw HearthError(
        .fileUnusable, "The weights of '\(name)' were not made yet.",
        hint: "Run 'make functions' in \(URL(fileURLWithPath: templates).deletingLastPathComponent().path).")
    }
  }

  /// Copies what the function needs, under another name.
  func copy(to path: String, _ name: FunctionName) throws {
    let files = FileManager.default
    for file in try FolderListing.files(of: folder) where !Template.left.contains(file) {
      let target = URL(fileURLWithPath: "\(path)/\(file)")
      try files.createDirectory(at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
      try files.copyItem(atPath: "\(folder)/\(file)", toPath: target.path)
    }
    let spec = "\(path)/\(FunctionSpec.fileName)"
    let lines = try String(contentsOfFile: spec, encoding: .utf8).split(
      separator: "\n", omittingEmptySubsequences: false)
    let renamed = lines.map { $0.hasPrefix("name:") ? "name: \(name)" : $0 }
    try Data(renamed.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: spec))
  }
}
