import HearthCore

/// Something with memory of its own, beside the machine's, that workers can be given.
public struct Device: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// A GPU of NVIDIA's, by the name that it has for life.
    case cuda(uuid: String)
    /// One that is not there, for tests and for trying things without a GPU. Loads take at least the time in which it
    /// would take the weights at so many bytes a second; nil: no longer than they take.
    case simulated(bandwidth: Int64?)
  }

  /// `cuda:0`, `simulated:1`: unique on its node.
  public var name: String
  public var kind: Kind
  /// All its memory.
  public var memory: ByteSize
  /// What it is sold as.
  public var model: String

  public init(name: String, kind: Kind, memory: ByteSize, model: String) {
    self.name = name
    self.kind = kind
    self.memory = memory
    self.model = model
  }

  public static func simulated(_ number: Int, memory: ByteSize, bandwidth: Int64?) -> Device {
    Device(name: "simulated:\(number)", kind: .simulated(bandwidth: bandwidth), memory: memory, model: "simulated")
  }

  /// What its workers call it: of the GPUs they see theirs alone.
  var workerName: String {
    switch kind {
    case .cuda: "cuda:0"
    case .simulated: name
    }
  }

  var bandwidth: Int64? {
    switch kind {
    case .cuda: nil
    case .simulated(let bandwidth): bandwidth
    }
  }

  /// The value of `CUDA_VISIBLE_DEVICES` for its workers.
  var visible: String {
    switch kind {
    case .cuda(let uuid): uuid
    case .simulated: ""
    }
  }
}
