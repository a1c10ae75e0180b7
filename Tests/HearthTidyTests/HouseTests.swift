import Foundation
import HearthConfiguration
import HearthCore
import Testing

/// The source tree as files.
private enum House {
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../..")
    .standardizedFileURL

  static func files(below folder: String, ending: String) -> [(path: String, text: String)] {
    let base = root.appendingPathComponent(folder)
    let names = FileManager.default.enumerator(atPath: base.path)?.allObjects as? [String] ?? []
    return names.filter { $0.hasSuffix(ending) }.sorted().compactMap { name in
      let text = try? String(contentsOf: base.appendingPathComponent(name), encoding: .utf8)
      return text.map { ("\(folder)/\(name)", $0) }
    }
  }

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  /// What each module may import besides the modules that its row names. ARCHITECTURE.md explains the table.
  static let imports: [String: Set<String>] = [
    "HearthCore": [],
    "HearthYAML": ["HearthCore", "Yams"],
    "HearthHTTP1": ["HearthCore", "NIOCore", "NIOConcurrencyHelpers"],
    "HearthWorkerProtocol": ["HearthCore", "NIOCore", "Foundation"],
    "HearthConfiguration": ["HearthCore", "HearthYAML", "Foundation"],
    "HearthTransfer": ["HearthCore", "CCurl", "CCurlShim", "Foundation"],
    "HearthBundle": ["HearthCore", "HearthYAML", "HearthTransfer", "CPlatform", "CZstd", "CCrypto", "Foundation"],
    "HearthStore": ["HearthCore", "GRDB", "Foundation"],
    "HearthScheduler": ["HearthCore", "DequeModule", "Glibc.exp", "Glibc.log"],
    "HearthReplay": ["HearthCore", "HearthScheduler", "Foundation"],
    "HearthWorker": [
      "HearthCore", "HearthHTTP1", "HearthWorkerProtocol", "CPlatform", "NIOCore", "NIOPosix",
      "NIOConcurrencyHelpers", "Logging", "Foundation",
    ],
    "HearthDispatch": [
      "HearthCore", "HearthBundle", "HearthHTTP1", "HearthScheduler", "HearthWorker", "NIOCore", "NIOPosix", "Glibc",
      "NIOConcurrencyHelpers", "Synchronization", "Logging", "Foundation",
    ],
    "HearthHTTP": [
      "HearthCore", "HearthHTTP1", "NIOCore", "NIOPosix", "NIOConcurrencyHelpers", "NIOTLS", "NIOSSL", "NIOHTTP2",
      "NIOHPACK", "Logging", "Glibc", "Foundation",
    ],
    "HearthAdmin": [
      "HearthCore", "HearthBundle", "HearthHTTP1", "HearthStore", "HearthDispatch", "HearthScheduler", "Hummingbird",
      "ServiceLifecycle", "NIOCore",
      "NIOPosix", "NIOFoundationCompat", "Logging", "Foundation",
    ],
    "HearthServer": [
      "HearthCore", "HearthConfiguration", "HearthBundle", "HearthStore", "HearthWorker", "HearthDispatch",
      "HearthHTTP", "HearthAdmin", "NIOCore", "NIOPosix", "ServiceLifecycle", "Logging", "Foundation",
    ],
    "HearthCLI": [
      "HearthCore", "HearthConfiguration", "HearthBundle", "HearthReplay", "HearthTransfer", "HearthAdmin",
      "HearthServer", "ArgumentParser", "Foundation",
    ],
    "HearthTestSupport": ["HearthCore", "HearthBundle", "Foundation"],
  ]

  /// The imports of a file that its module's row does not allow.
  static func forbidden(in text: String, module: String) -> [String] {
    let allowed = imports[module] ?? []
    return text.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      guard let index = words.firstIndex(of: "import"), index <= 1, words.count > index + 1 else { return nil }
      guard index == 0 || words[0].hasPrefix("@") || words[0] == "public" else { return nil }
      // One function of a module, as opposed to all of it.
      let isScoped = words[index + 1] == "func" && words.count > index + 2
      let name = isScoped ? String(words[index + 2]) : String(words[index + 1].split(separator: ".")[0])
      return allowed.contains(name) ? nil : name
    }
  }
}

@Suite("The house is tidy")
struct HouseTests {
  private static let sources = House.files(below: "Sources", ending: ".swift")
  private static let all = sources + House.files(below: "Tests", ending: ".swift")

  @Test("Every module imports only what its row of the table allows")
  func imports() {
    #expect(HouseTests.sources.count > 50)
    for (path, text) in HouseTests.sources {
      let module = String(path.split(separator: "/")[1])
      #expect(House.forbidden(in: text, module: module) == [], "\(path)")
    }
    #expect(
      House.forbidden(in: "import Foundation\n@preconcurrency import NIOCore", module: "HearthScheduler") == [
        "Foundation", "NIOCore",
      ])
  }

  @Test("The scheduler knows no clock, task or lock")
  func pureScheduler() {
    let banned = ["ContinuousClock", "SuspendingClock", "Task {", "Lock", "DispatchQueue", "print("]
    for (path, text) in HouseTests.sources where path.hasPrefix("Sources/HearthScheduler") {
      for word in banned { #expect(!text.contains(word), "\(path) uses \(word)") }
    }
  }

  @Test("Files stay small and lines short")
  func sizes() {
    for (path, text) in HouseTests.all {
      let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
      #expect(lines.count <= 400, "\(path) has \(lines.count) lines")
      for (index, line) in lines.enumerated() where path.hasPrefix("Sources") {
        #expect(line.count <= 120, "\(path):\(index + 1)")
      }
    }
  }

  @Test("No name says Manager, Helper or Utils, and no comment promises to come back")
  func words() {
    for (path, text) in HouseTests.all where !path.hasSuffix("HouseTests.swift") {
      let lines = text.split(separator: "\n").filter { !$0.hasPrefix("import ") }
      let code = lines.joined(separator: "\n").replacingOccurrences(of: "FileManager", with: "")
      for word in ["Manager ", "Manager{", "Helper", "Utils", "TODO", "FIXME", "XXX"] {
        let isAbsent = !code.contains(word)
        #expect(isAbsent, "\(path) says \(word)")
      }
    }
  }

  @Test("docs/errors.md lists each code with its status, and no other")
  func errorsPage() throws {
    let page = try House.text("docs/errors.md")
    let rows = page.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { row in
      row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let listed = Set(rows.map { "\($0[0].trimmingCharacters(in: ["`"])) \($0[1])" })
    #expect(listed == Set(ErrorCode.all.map { "\($0.name) \($0.status)" }))
  }

  @Test("docs/configuration.md names each setting and knob with its default")
  func configurationPage() throws {
    let page = try House.text("docs/configuration.md")
    for setting in GatewayConfiguration.settings {
      #expect(page.contains("| `\(setting.name)` |"), "\(setting.name)")
    }
    for knob in PolicyKnob.all {
      #expect(page.contains("| `\(knob.name)` | \(knob.read(FunctionPolicy())) |"), "\(knob.name)")
    }
  }
}
