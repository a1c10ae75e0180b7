import HearthCore
import HearthYAML

extension FunctionSpec {
  /// Reads the text of `function.yaml`. Throws `spec_invalid` with line and column, or `policy_invalid`.
  public init(parsing text: String) throws {
    let root = try YAMLMapping(parsing: text, file: FunctionSpec.fileName, code: .specInvalid)
    guard let written = try root.text("name") else {
      throw root.invalid("name", "'name' is missing.", hint: "Add a line such as 'name: my-function'.")
    }
    name = try FunctionName(written)
    entry = try FunctionSpec.entry(root)
    description = try root.text("description")
    if let section = try root.mapping("python") { python = try FunctionSpec.python(section) }
    files = try (root.mappings("files") ?? []).map(FunctionSpec.file)
    if let section = try root.mapping("resources") { resources = try FunctionSpec.resources(section) }
    models = try FunctionSpec.models(root)
    if let written = try root.value("isolation", expected: "process or shared", Isolation.init(rawValue:)) {
      isolation = written
      if models == nil {
        throw root.invalid(
          "isolation", "'isolation' says how models are housed; this function has none.",
          hint: "Add 'models', or leave 'isolation' out.")
      }
    }
    if models != nil { policy.keepModels() }
    if let section = try root.mapping("batching") { batching = try FunctionSpec.batching(section) }
    if let batching { policy.concurrencyMax = batching.concurrency }
    policyKeys = try policy.read(root)
    try checkBatching(root)
    if models != nil { try checkModels(root) }
    if let section = try root.mapping("env") { environment = try FunctionSpec.environment(section) }
    idempotent = try root.boolean("idempotent") ?? false
    network = try root.boolean("network") ?? false
    config = try root.json("config") ?? "{}"
    if !config.hasPrefix("{") { throw root.invalid("config", "config must be a mapping of keys to values.") }
    try root.finish()
    if case .command = entry, !python.preload.isEmpty || python.requirements != nil {
      throw root.invalid("python", "'python' is for a 'handler'; this function has a 'command'.")
    }
  }

  private static func models(_ root: YAMLMapping) throws -> Models? {
    if root.isSingle("models") {
      return try root.value("models", expected: "a folder in the bundle, or a list") { path in
        try BundlePath.check(path)
        return .folder(path)
      }
    }
    guard let entries = try root.mappings("models") else { return nil }
    return .list(try entries.map(model))
  }

  private static func model(_ section: YAMLMapping) throws -> Models.Entry {
    guard let path = try section.text("path") else {
      throw section.invalid("path", "an entry of models has no 'path'.")
    }
    try BundlePath.check(path)
    let name = try section.text("name").map { try ModelName($0) }
    var settings = ModelSettings()
    settings.memory = try section.value("memory", expected: "a size such as 512MiB") { text in
      ByteSize(text).flatMap { $0.bytes > 0 ? $0 : nil }
    }
    settings.isPinned = try section.boolean("pinned") ?? false
    let priorities = ModelSettings.priorities
    settings.priority =
      try section.value(
        "priority", expected: "a whole number from \(priorities.lowerBound) to \(priorities.upperBound)"
      ) { Int($0).flatMap { priorities.contains($0) ? $0 : nil } } ?? 0
    try section.finish()
    return Models.Entry(name: name, path: path, settings: settings)
  }

  private func checkModels(_ root: YAMLMapping) throws {
    if case .command = entry {
      throw root.invalid("models", "'models' is for a 'handler'; this function has a 'command'.")
    }
    try policy.validateForModels()
  }

  private static func batching(_ section: YAMLMapping) throws -> Batching {
    let sizes = Batching.sizes
    let size = try section.value(
      "max-size", expected: "a whole number from \(sizes.lowerBound) to \(sizes.upperBound)"
    ) { Int($0).flatMap { sizes.contains($0) ? $0 : nil } }
    guard let size else {
      throw section.invalid("max-size", "'batching' has no 'max-size'.", hint: "Say how many requests make a batch.")
    }
    var batching = Batching(sizeMax: size)
    batching.waitMax =
      try section.value("max-wait", expected: "a duration from 0s to \(Batching.waitMax.text), such as 5ms") { text in
        Duration(hearth: text).flatMap { $0 >= .zero && $0 <= Batching.waitMax ? $0 : nil }
      } ?? .zero
    try section.finish()
    return batching
  }

  private func checkBatching(_ root: YAMLMapping) throws {
    guard let batching else { return }
    if case .command = entry {
      throw root.invalid("batching", "'batching' is for a 'handler'; this function has a 'command'.")
    }
    guard policy.concurrencyMax >= batching.sizeMax else {
      throw root.invalid(
        "batching",
        "a worker takes \(policy.concurrencyMax) requests at a time (max-concurrency), fewer than a batch of "
          + "\(batching.sizeMax).", hint: "Raise max-concurrency to \(batching.concurrency), or leave it out.")
    }
  }

  private static func entry(_ root: YAMLMapping) throws -> Entry {
    let handler = try root.text("handler")
    let command = try root.texts("command")
    switch (handler, command) {
    case (let handler?, nil):
      let parts = handler.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2, parts[0].hasSuffix(".py"), isIdentifier(parts[1]),
        (try? BundlePath.check(String(parts[0]))) != nil
      else {
        throw root.invalid(
          "handler", "'\(handler.printable(limit: 80))' is not a handler.",
          hint: "Write the file and the class, as in 'handler.py:Model'.")
      }
      return .handler(file: String(parts[0]), className: String(parts[1]))
    case (nil, let command?):
      guard let program = command.first, !program.isEmpty else {
        throw root.invalid("command", "'command' is empty.", hint: "List the program and its arguments.")
      }
      return .command(command)
    case (nil, nil):
      throw root.invalid(
        "handler", "neither 'handler' nor 'command' is given.", hint: "Add a line such as 'handler: handler.py:Model'.")
    default:
      throw root.invalid("command", "both 'handler' and 'command' are given.", hint: "Keep one of them.")
    }
  }

  private static func isIdentifier(_ text: Substring) -> Bool {
    guard let first = text.unicodeScalars.first, first.properties.isXIDStart || first == "_" else { return false }
    return text.unicodeScalars.allSatisfy { $0.properties.isXIDContinue }
  }

  private static func python(_ section: YAMLMapping) throws -> Python {
    var python = Python()
    python.requirements = try section.value("requirements", expected: "a path in the bundle") { path in
      try BundlePath.check(path)
      return path
    }
    python.preload = try section.texts("preload") ?? []
    for module in python.preload where !module.split(separator: ".").allSatisfy(isIdentifier) {
      throw section.invalid("preload", "'\(module.printable(limit: 80))' is not a module's name.")
    }
    python.start = try section.value("start", expected: "fork or spawn", Start.init(rawValue:)) ?? .fork
    try section.finish()
    return python
  }

  private static func file(_ section: YAMLMapping) throws -> File {
    guard let path = try section.text("path") else {
      throw section.invalid("path", "an entry of files has no 'path'.")
    }
    try BundlePath.check(path)
    let source = try section.text("source")
    let sha256 = try section.value("sha256", expected: "64 hexadecimal digits") { try Digest($0) }
    if source != nil && sha256 == nil {
      throw section.invalid("source", "'\(path)' has a source but no sha256.", hint: "Pin it: add its sha256.")
    }
    try section.finish()
    return File(path: path, source: source, sha256: sha256)
  }

  private static func resources(_ section: YAMLMapping) throws -> Resources {
    var resources = Resources()
    if let cpu = try section.number("cpu") {
      guard cpu >= 0, cpu <= 1024 else { throw section.invalid("cpu", "cpu must be from 0 to 1024.") }
      resources.cpu = cpu
    }
    let size = "a size such as 512MiB"
    resources.memory = try section.value("memory", expected: size) { ByteSize($0) }
    resources.gpu =
      try section.value("gpu", expected: "0 or 1, the GPUs of a worker") {
        Int($0).flatMap { (0...1).contains($0) ? $0 : nil }
      } ?? 0
    resources.gpuMemory = try section.value("gpu-memory", expected: size) { ByteSize($0) }
    if resources.gpuMemory != nil, resources.gpu == 0 {
      throw section.invalid("gpu-memory", "'gpu-memory' is given and no GPU.", hint: "Add 'gpu: 1'.")
    }
    resources.temporary = try section.value("temporary", expected: size) { ByteSize($0) } ?? resources.temporary
    try section.finish()
    return resources
  }

  private static func environment(_ section: YAMLMapping) throws -> [String: String] {
    var result: [String: String] = [:]
    for key in section.allKeys() {
      guard isIdentifier(key[...]), !key.hasPrefix("HEARTH_"), !key.hasPrefix("LD_") else {
        throw section.invalid(key, "'\(key.printable(limit: 80))' is not a name that env may set.")
      }
      result[key] = try section.text(key)
    }
    return result
  }
}
