/// What a model will take, as the sizes of its files and what others of its function took let expect.
public struct MemoryPrediction: Sendable {
  /// A model that was measured: its files and its memory, in bytes.
  private struct Sample {
    let files: Int64
    var memory: Int64
  }

  /// 64: models of so many sizes are told apart; beyond, the nearest serves.
  private static let samplesMax = 64
  /// 64 MiB: an interpreter with a library or two, before any model was measured.
  private static let baseUnknown: Int64 = 64 << 20

  /// In the order of their files' sizes.
  private var samples: [Sample] = []

  public init() {}

  /// A model whose files have so many bytes was measured.
  public mutating func observe(files: Int64, memory: Int64) {
    let index = samples.firstIndex { $0.files >= files } ?? samples.endIndex
    if index < samples.endIndex, samples[index].files == files {
      samples[index].memory = max(samples[index].memory, memory)
    } else if samples.count < MemoryPrediction.samplesMax {
      samples.insert(Sample(files: files, memory: memory), at: index)
    }
  }

  /// As much as the model nearest in size took, with the difference between their files. A larger one is taken to
  /// need more in proportion, since many a library keeps its weights in another form beside the files; what every
  /// model needs whatever its size is left out of that.
  public func bytes(files: Int64) -> Int64 {
    let files = Double(max(0, files))
    guard let nearest = samples.min(by: { abs(Double($0.files) - files) < abs(Double($1.files) - files) }) else {
      return MemoryPrediction.whole(files * 1.25 + Double(MemoryPrediction.baseUnknown))
    }
    let difference = files - Double(nearest.files)
    guard difference > 0 else { return MemoryPrediction.whole(max(Double(nearest.memory) + difference, files)) }
    let base = Double(min(MemoryPrediction.baseUnknown, samples.map(\.memory).min() ?? 0))
    let slope = nearest.files > 0 ? (Double(nearest.memory) - base) / Double(nearest.files) : 1.25
    return MemoryPrediction.whole(Double(nearest.memory) + difference * min(max(slope, 1.25), slopeMax))
  }

  /// 4: more is not the model's but something that the nearest one happened to need.
  private var slopeMax: Double { 4 }

  private static func whole(_ bytes: Double) -> Int64 { Int64(min(max(bytes, 0), 1e18)) }
}
