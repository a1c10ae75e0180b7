import HearthCore
import HearthYAML

extension FunctionPolicy {
  /// Reads the text of a policy: the sections `scaling` and `timeouts` as they stand in `function.yaml`, or the text of
  /// a whole `function.yaml`, of which the rest is passed over. Throws `policy_invalid` with line and column.
  public init(parsing text: String, file: String) throws {
    self.init()
    let root = try YAMLMapping(parsing: text, file: file, code: .policyInvalid)
    let isSpec = try root.text("name") != nil
    _ = try read(root)
    if isSpec { _ = root.allKeys() }
    try root.finish()
  }

  /// Reads the sections of a policy, and returns the knobs that were set.
  mutating func read(_ root: YAMLMapping) throws -> Set<String> {
    var set: Set<String> = []
    for kind in [PolicyKnob.Section.scaling, .timeouts] {
      guard let section = try root.mapping(kind.rawValue) else { continue }
      for knob in PolicyKnob.all where knob.section == kind {
        guard let text = try FunctionPolicy.text(of: knob, section) else { continue }
        do {
          try knob.write(text, to: &self)
        } catch let error as HearthError {
          throw section.invalid(knob.name, error.message, hint: error.hint)
        }
        set.insert(knob.name)
      }
      try section.finish()
    }
    try validate()
    return set
  }

  /// A knob's value as text. Warm windows are written as a list of mappings.
  private static func text(of knob: PolicyKnob, _ section: YAMLMapping) throws -> String? {
    guard knob.name == PolicyKnob.warmWindowsName else { return try section.text(knob.name) }
    return try section.mappings(knob.name)?.map { window in
      let cron = try window.text("cron")
      let duration = try window.text("duration")
      let workers = try window.text("workers")
      try window.finish()
      guard let cron, let duration else {
        throw section.invalid(
          knob.name, "a warm window needs 'cron' and 'duration'.",
          hint: "As in: {cron: 0 8 * * mon-fri, duration: 10h, workers: 2}.")
      }
      return "\(cron) for \(duration) workers \(workers ?? "1")"
    }.joined(separator: "; ")
  }
}
