import HearthCore

/// The invocations that a worker has: in the order it got them where it takes one at a time, by id where it takes many.
struct InFlight: Sendable {
  /// 16: up to here a search through a list is faster than a table.
  private static let listMax = 16

  private var list: [FunctionSchedule.Running] = []
  private var table: [InvocationID: FunctionSchedule.Running] = [:]

  var count: Int { list.count + table.count }
  var isEmpty: Bool { list.isEmpty && table.isEmpty }

  /// The oldest of a worker that takes one at a time.
  var first: FunctionSchedule.Running? { list.first }
  /// When the one that a worker has had for longest began; nil when it has none.
  var oldestBegan: HearthInstant? {
    let listed = list.lazy.map(\.began).min()
    let tabled = table.values.lazy.map(\.began).min()
    guard let listed, let tabled else { return listed ?? tabled }
    return min(listed, tabled)
  }

  mutating func append(_ running: FunctionSchedule.Running) {
    if list.count < InFlight.listMax { list.append(running) } else { table[running.id] = running }
  }

  mutating func remove(_ id: InvocationID) -> FunctionSchedule.Running? {
    if let index = list.firstIndex(where: { $0.id == id }) { return list.remove(at: index) }
    return table.removeValue(forKey: id)
  }

  /// Marks those that are not marked yet, and returns them.
  mutating func markRecalled() -> [InvocationID] {
    var marked: [InvocationID] = []
    for index in list.indices where !list[index].isRecalled {
      list[index].isRecalled = true
      marked.append(list[index].id)
    }
    return marked
  }
}
