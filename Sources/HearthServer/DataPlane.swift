import HearthDispatch
import HearthHTTP
import HearthWorker
import ServiceLifecycle

/// The data plane as a service: runs until the gateway shuts down, then drains.
struct DataPlane: Service {
  let listener: HTTPListener
  let dispatcher: Dispatcher
  let arrivals: ArrivalLog
  let host: LocalHost

  func run() async throws {
    try? await gracefulShutdown()
    await listener.drain()
    await dispatcher.shutDown()
    arrivals.flush()
    try await host.shutDown().get()
    await listener.stop()
  }
}
