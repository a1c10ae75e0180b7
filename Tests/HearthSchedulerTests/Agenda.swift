import HearthCore

/// Events of a simulation in the order of their times; those of one instant in the order they came.
struct Agenda<Event> {
  /// In descending order, so that the next event is the last.
  private var entries: [(at: HearthInstant, event: Event)] = []

  var next: HearthInstant? { entries.last?.at }

  mutating func popNext() -> (at: HearthInstant, event: Event)? { entries.popLast() }

  mutating func removeAll(where isUnwanted: (Event) -> Bool) { entries.removeAll { isUnwanted($0.event) } }

  mutating func add(_ event: Event, at instant: HearthInstant) {
    var (low, high) = (0, entries.count)
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].at > instant { low = middle + 1 } else { high = middle }
    }
    entries.insert((instant, event), at: low)
  }
}
