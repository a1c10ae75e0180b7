import HearthCore

/// What is to happen, in order of time and, at one instant, of being added: a binary heap.
struct EventQueue<Event> {
  private struct Entry {
    let at: HearthInstant
    let number: UInt64
    let event: Event

    func precedes(_ other: Entry) -> Bool { at == other.at ? number < other.number : at < other.at }
  }

  private var heap: [Entry] = []
  private var added: UInt64 = 0

  var nextAt: HearthInstant? { heap.first?.at }

  mutating func add(_ event: Event, at instant: HearthInstant) {
    added += 1
    heap.append(Entry(at: instant, number: added, event: event))
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[child].precedes(heap[parent]) else { return }
      heap.swapAt(child, parent)
      child = parent
    }
  }

  mutating func removeFirst() -> Event {
    let first = heap[0].event
    let last = heap.removeLast()
    guard !heap.isEmpty else { return first }
    heap[0] = last
    sink(last)
    return first
  }

  private mutating func sink(_ entry: Entry) {
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
      guard heap[child].precedes(entry) else { break }
      heap[parent] = heap[child]
      parent = child
    }
    heap[parent] = entry
  }
}
