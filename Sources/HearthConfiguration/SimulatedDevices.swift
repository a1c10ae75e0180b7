import HearthCore
import HearthYAML

/// GPUs that are not there: `simulated: {devices: 2, memory: 16GiB, bandwidth: 20GiB/s}` in `hearth.yaml`.
public struct SimulatedDevices: Sendable {
  /// 16: as many as the largest machines have.
  private static let countMax = 16

  public var count = 0
  /// Of each. Default 16GiB.
  public var memory = ByteSize.gib(16)
  /// Bytes a second by which one takes a model's weights. Nil, the default: loads take no longer than they do.
  public var bandwidth: Int64?

  public init() {}

  init(_ section: YAMLMapping) throws {
    count =
      try section.value("devices", expected: "a whole number from 0 to \(SimulatedDevices.countMax)") {
        Int($0).flatMap { (0...SimulatedDevices.countMax).contains($0) ? $0 : nil }
      } ?? 1
    memory =
      try section.value("memory", expected: "a size such as 16GiB") { ByteSize($0).flatMap { $0 > .zero ? $0 : nil } }
      ?? memory
    bandwidth = try section.value("bandwidth", expected: "a size a second, such as 20GiB/s") { text in
      guard text.hasSuffix("/s"), let size = ByteSize(String(text.dropLast(2))), size > .zero else { return nil }
      return size.bytes
    }
    try section.finish()
  }
}
