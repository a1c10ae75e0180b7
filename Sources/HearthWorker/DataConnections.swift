import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// The data connections of one worker, for the loops of all its requests.
final class DataConnections: Sendable {
  private let list: NIOLockedValueBox<WorkerConnections>

  init(pipelines: Bool) { list = NIOLockedValueBox(WorkerConnections(pipelines: pipelines)) }

  func take(on loop: any EventLoop) -> WorkerLink { list.withLockedValue { $0.take(on: loop) } }

  /// Takes a connection back, or closes it when it is of no further use. Call on its loop.
  func recycle(_ connection: WorkerConnection) {
    if !list.withLockedValue({ $0.giveBack(connection) }) { connection.close() }
  }

  /// Opens one to a socket that the worker listens on.
  func open(on loop: any EventLoop, path: String) -> EventLoopFuture<WorkerConnection> {
    open(on: loop) { $0.connect(unixDomainSocketPath: path) }
  }

  /// Opens one whose other end `send` hands to the worker; false when the worker is not there to take it.
  func open(on loop: any EventLoop, send: (Int32) -> Bool) -> EventLoopFuture<WorkerConnection> {
    do {
      let sockets = try DescriptorPair.sockets()
      defer { close(sockets.theirs) }
      guard send(sockets.theirs) else {
        close(sockets.ours)
        return loop.makeFailedFuture(WorkerFailure.unreachable)
      }
      return open(on: loop) { $0.withConnectedSocket(sockets.ours) }
    } catch {
      return loop.makeFailedFuture(error)
    }
  }

  private func open(
    on loop: any EventLoop, _ connect: (ClientBootstrap) -> EventLoopFuture<any Channel>
  ) -> EventLoopFuture<WorkerConnection> {
    let connection = NIOLoopBoundBox(WorkerConnection(), eventLoop: loop)
    let bootstrap = ClientBootstrap(group: loop)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(connection.value)
        }
      }
    return connect(bootstrap).assumeIsolated().map { [self] _ in
      list.withLockedValue { $0.opened(connection.value) }
      return connection.value
    }.nonisolated()
  }
}
