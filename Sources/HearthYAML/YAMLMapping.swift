import HearthCore
import Yams

/// A strict reader of one YAML mapping: each key is asked for by name, and one nobody asked for is an error that names
/// its line, column and the nearest known key.
public final class YAMLMapping {
  /// What errors call the file.
  private let file: String
  private let code: ErrorCode
  private let entries: [(key: String, keyNode: Node, value: Node)]
  private var known: [String] = []

  /// Parses a document whose root is a mapping. An empty document is an empty mapping.
  public convenience init(parsing text: String, file: String, code: ErrorCode) throws {
    let root: Node?
    do {
      root = try Yams.compose(yaml: text)
    } catch let error as YamlError {
      throw HearthError(code, "\(file): \(YAMLMapping.describe(error))")
    }
    let empty = Node.mapping(Node.Mapping([]))
    try self.init(root ?? empty, file: file, code: code, name: "the document")
  }

  private init(_ node: Node, file: String, code: ErrorCode, name: String) throws {
    self.file = file
    self.code = code
    guard let mapping = node.mapping else {
      throw YAMLMapping.error(code, file, node, "\(name) must be a mapping of keys to values.")
    }
    entries = try mapping.map { key, value in
      guard let text = key.scalar?.string else {
        throw YAMLMapping.error(code, file, key, "a key must be plain text.")
      }
      return (text, key, value)
    }
  }

  /// All keys, for mappings whose keys the user chooses (`env`). Counts as having asked for each.
  public func allKeys() -> [String] {
    known.append(contentsOf: entries.map(\.key))
    return entries.map(\.key)
  }

  /// The scalar under `key` as written, or nil when the key is absent.
  public func text(_ key: String) throws -> String? {
    guard let value = ask(key) else { return nil }
    guard let scalar = value.scalar else { throw error(value, "\(key) must be a single value.") }
    return scalar.string
  }

  /// Whether a single value stands under `key`, for keys that take one or a list.
  public func isSingle(_ key: String) -> Bool { ask(key)?.scalar != nil }

  public func boolean(_ key: String) throws -> Bool? {
    guard let value = ask(key) else { return nil }
    guard let boolean = value.bool else { throw error(value, "\(key) must be true or false.") }
    return boolean
  }

  public func number(_ key: String) throws -> Double? {
    guard let value = ask(key) else { return nil }
    guard let number = value.float else { throw error(value, "\(key) must be a number.") }
    return number
  }

  public func texts(_ key: String) throws -> [String]? {
    guard let value = ask(key) else { return nil }
    guard let sequence = value.sequence else { throw error(value, "\(key) must be a list.") }
    return try sequence.map { item in
      guard let scalar = item.scalar else { throw error(item, "each item of \(key) must be a single value.") }
      return scalar.string
    }
  }

  public func mapping(_ key: String) throws -> YAMLMapping? {
    guard let value = ask(key) else { return nil }
    return try YAMLMapping(value, file: file, code: code, name: key)
  }

  public func mappings(_ key: String) throws -> [YAMLMapping]? {
    guard let value = ask(key) else { return nil }
    guard let sequence = value.sequence else { throw error(value, "\(key) must be a list.") }
    return try sequence.map { try YAMLMapping($0, file: file, code: code, name: "each item of \(key)") }
  }

  /// The value under `key`, of any shape, as JSON text. Nil when the key is absent.
  public func json(_ key: String) throws -> String? {
    guard let value = ask(key) else { return nil }
    return try renderJSON(value, depth: 0)
  }

  /// Reads a value with `parse`, and names the place when it throws or returns nil.
  public func value<Value>(_ key: String, expected: String, _ parse: (String) throws -> Value?) throws -> Value? {
    guard let text = try text(key) else { return nil }
    guard let value = try? parse(text) else {
      throw error(ask(key)!, "'\(text.printable(limit: 80))' is not a value of \(key); expected \(expected).")
    }
    return value
  }

  /// The error to throw for a value that is well-formed but wrong.
  public func invalid(_ key: String, _ problem: String, hint: String? = nil) -> HearthError {
    let node = entries.first { $0.key == key }?.value
    return YAMLMapping.error(code, file, node, problem, hint: hint)
  }

  /// Refuses the first key that nothing asked for.
  public func finish() throws {
    for entry in entries where !known.contains(entry.key) {
      let nearest = entry.key.nearest(in: known)
      throw YAMLMapping.error(
        code, file, entry.keyNode, "unknown key '\(entry.key.printable(limit: 80))'.",
        hint: nearest.map { "Did you mean '\($0)'?" } ?? "Known keys here: \(known.sorted().joined(separator: ", ")).")
    }
  }

  private func ask(_ key: String) -> Node? {
    if !known.contains(key) { known.append(key) }
    return entries.first { $0.key == key }?.value
  }

  private func error(_ node: Node, _ problem: String) -> HearthError {
    YAMLMapping.error(code, file, node, problem)
  }

  private static func error(
    _ code: ErrorCode, _ file: String, _ node: Node?, _ problem: String, hint: String? = nil
  ) -> HearthError {
    let place = node?.mark.map { "\(file):\($0.line):\($0.column)" } ?? file
    return HearthError(code, "\(place): \(problem)", hint: hint)
  }

  /// Yams' own errors span several lines with a picture of the place; one line is enough here.
  private static func describe(_ error: YamlError) -> String {
    switch error {
    case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _):
      "line \(mark.line), column \(mark.column): \(problem)."
    case .composer(_, let problem, let mark, _):
      "line \(mark.line), column \(mark.column): \(problem)."
    case .duplicatedKeysInMapping(let duplicates, _):
      "the key '\(duplicates.first ?? "")' stands twice in one mapping."
    default:
      "not readable as YAML."
    }
  }
}

/// YAML of any shape as JSON, for values that are the function author's own.
private func renderJSON(_ node: Node, depth: Int) throws -> String {
  guard depth < 32 else { throw HearthError(.specInvalid, "a value is nested more than 32 levels deep.") }
  switch node {
  case .mapping(let mapping):
    let members = try mapping.map { key, value in
      "\(quoted(key.scalar?.string ?? "")):\(try renderJSON(value, depth: depth + 1))"
    }
    return "{\(members.joined(separator: ","))}"
  case .sequence(let sequence):
    return "[\(try sequence.map { try renderJSON($0, depth: depth + 1) }.joined(separator: ","))]"
  case .scalar(let scalar):
    if scalar.style != .any && scalar.style != .plain { return quoted(scalar.string) }
    if let boolean = node.bool { return boolean ? "true" : "false" }
    if let integer = node.int { return String(integer) }
    if let number = node.float, number.isFinite { return String(number) }
    return node.null != nil ? "null" : quoted(scalar.string)
  case .alias:
    throw HearthError(.specInvalid, "aliases are not supported here.")
  }
}

private func quoted(_ text: String) -> String { JSONText.quoted(text) }
