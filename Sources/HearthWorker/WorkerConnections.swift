import NIOCore

/// The data connections of one worker. A connection is used on its own loop only; the list may be asked from any.
///
/// A worker that answers in order has one connection for each loop, which takes one request behind another. Any other
/// has as many as it serves requests at a time, and an idle one is taken out of the list until it is given back.
struct WorkerConnections: @unchecked Sendable {
  private struct Entry {
    let loop: ObjectIdentifier
    let connection: WorkerConnection
  }

  private let pipelines: Bool
  private var entries: [Entry] = []

  init(pipelines: Bool) { self.pipelines = pipelines }

  /// Notes a new connection.
  mutating func opened(_ connection: WorkerConnection) {
    guard pipelines else { return }
    let loop = ObjectIdentifier(connection.eventLoop)
    entries.removeAll { $0.loop == loop }
    entries.append(Entry(loop: loop, connection: connection))
  }

  /// A connection of the loop that takes a request now.
  mutating func take(on loop: any EventLoop) -> WorkerLink {
    let key = ObjectIdentifier(loop)
    if pipelines {
      guard let connection = entries.first(where: { $0.loop == key })?.connection, connection.isOpen else {
        return .none
      }
      return connection.takesRequests ? .ready(connection) : .heldUp
    }
    while let index = entries.lastIndex(where: { $0.loop == key }) {
      let connection = entries.remove(at: index).connection
      if connection.takesRequests { return .ready(connection) }
    }
    return .none
  }

  /// Takes a connection back that has served its request. False when it is of no further use.
  mutating func giveBack(_ connection: WorkerConnection) -> Bool {
    if pipelines { return connection.hasRequests || entries.contains { $0.connection === connection } }
    guard connection.takesRequests else { return false }
    entries.append(Entry(loop: ObjectIdentifier(connection.eventLoop), connection: connection))
    return true
  }
}
