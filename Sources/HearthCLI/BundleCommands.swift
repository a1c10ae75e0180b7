import ArgumentParser
import Foundation
import HearthBundle
import HearthCore

struct BundleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bundle", abstract: "Make and check bundles.",
    subcommands: [Init.self, Pack.self, Inspect.self, Verify.self])
}

extension BundleCommand {
  struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write a function to start from.",
      discussion: "A small one, or a copy of one of those that come with Hearth: functions/README.md shows them.")

    @Argument(help: "The folder to make; its name becomes the function's.")
    var path: String

    @Option(help: "One of Hearth's own functions to copy, such as embed.")
    var template: String?

    func run() throws {
      let name = try FunctionName(URL(fileURLWithPath: path).lastPathComponent)
      guard access(path, F_OK) != 0 else {
        throw HearthError(.fileUnusable, "'\(path)' is there already.", hint: "Choose another folder.")
      }
      if let template {
        try Template(template).copy(to: path, name)
        return print("Copied \(template) to \(path). Next: hearth run \(path)")
      }
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      for (file, text) in StarterTemplate.files(name) {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(path)/\(file)"))
      }
      print("Wrote \(path)/function.yaml and \(path)/handler.py. Next: hearth deploy \(path)")
    }
  }

  struct Pack: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Pack a folder into a .tar.zst.")

    @Argument(help: "The folder with function.yaml.")
    var path: String

    @Option(name: .shortAndLong, help: "The archive to write (default: NAME.tar.zst).")
    var output: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      let bundle = try LocalBundle(path)
      let output = output ?? "\(bundle.spec.name).tar.zst"
      try BundleArchive.pack(bundle.folder, manifest: bundle.manifest, to: output, withoutBlobs: false) {
        Terminal.progress("packing", $0, bundle.manifest.byteCount)
      }
      Terminal.clearStatus()
      try bundle.describe(json: json, archive: output)
    }
  }

  struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show what a folder or archive holds.")

    @Argument(help: "A folder or a .tar.zst.")
    var path: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      let bundle = try LocalBundle(path)
      try bundle.describe(json: json, archive: nil)
      guard !json else { return }
      Terminal.table(
        [["PATH", "SIZE", "SHA-256"]]
          + bundle.manifest.files.map { [$0.path, ByteSize(bytes: $0.size).rounded, $0.digest.short] })
    }
  }

  struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Check a folder or archive as a deploy would.",
      discussion: "Checks paths, sizes, digests and function.yaml; starts nothing.")

    @Argument(help: "A folder or a .tar.zst.")
    var path: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      try LocalBundle(path).describe(json: json, archive: nil)
    }
  }
}

/// The files that `bundle init` writes.
enum StarterTemplate {
  static func files(_ name: FunctionName) -> [(file: String, text: String)] {
    [
      (
        "function.yaml",
        """
        name: \(name)
        handler: handler.py:Model

        # Packages, pinned, and what of them to import before a worker is needed:
        # python:
        #   requirements: requirements.txt
        #   preload: [numpy]

        scaling:
          keep-alive: 5m        # how long an idle worker stays; then the function is at zero
          max-workers: 4

        """
      ),
      (
        "handler.py",
        """
        class Model:
            def load(self, context):
                # Runs once in each worker: read weights from context.bundle here.
                self.greeting = context.config.get("greeting", "hello")

            def predict(self, input, context):
                # `input` is the request's JSON; what is returned is the answer's.
                return {"answer": f"{self.greeting}, {(input or {}).get('name', 'world')}"}

        """
      ),
    ]
  }
}
