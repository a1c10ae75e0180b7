import HearthDispatch
import HearthScheduler
import Hummingbird
import NIOCore

/// What monitoring scrapes.
extension AdminRoutes {
  private typealias Sample = MetricsText.Sample

  func addMetricsRoute(to router: Router<BasicRequestContext>) {
    router.get("metrics") { _, _ in
      var metrics = MetricsText()
      addDevices(to: &metrics)
      addFunctions(to: &metrics)
      addModels(to: &metrics)
      return Response(
        status: .ok, headers: [.contentType: MetricsText.contentType],
        body: ResponseBody(byteBuffer: ByteBuffer(string: metrics.text)))
    }
  }

  private func addDevices(to metrics: inout MetricsText) {
    let devices = registry.devices
    func each(_ value: (LedgerView) -> Double) -> [Sample] {
      devices.map { Sample(labels: ["device": $0.name], value: value($0)) }
    }
    metrics.add(
      "hearth_device_budget_bytes", .gauge, "What workers may take of a device, or of the machine's memory (cpu).",
      each { Double($0.budget.bytes) })
    metrics.add(
      "hearth_device_granted_bytes", .gauge, "What workers hold of it or are reserved.",
      each { Double($0.granted.bytes) })
    metrics.add(
      "hearth_device_overhead_bytes", .gauge, "What is in use of it that no worker is charged with.",
      each { Double($0.overhead.bytes) })
    metrics.add("hearth_device_workers", .gauge, "Workers that hold some of it.", each { Double($0.workers) })
    metrics.add(
      "hearth_device_waiting", .gauge, "Workers that wait for memory or for their turn to start.",
      each { Double($0.waiting) })
    metrics.add(
      "hearth_evictions_total", .counter, "Workers and models that made room for others, idle or in use.",
      devices.flatMap { device in
        [
          Sample(labels: ["device": device.name, "reason": "idle"], value: Double(device.evictions)),
          Sample(labels: ["device": device.name, "reason": "yielded"], value: Double(device.yields)),
        ]
      })
    metrics.add(
      "hearth_eviction_idle_seconds_total", .counter, "How long those that were idle had been, in all.",
      each { ($0.evictionIdle?.seconds ?? 0) * Double($0.evictions) })
  }

  private func addFunctions(to metrics: inout MetricsText) {
    let functions = registry.served.map { served in
      (
        name: served.version.name.rawValue, views: served.endpoints.map { ($0.view(), $0.usage) },
        removed: served.removedRequests
      )
    }
    func each(_ value: (FunctionEndpoint.View) -> Int) -> [Sample] {
      functions.map { function in
        Sample(
          labels: ["function": function.name], value: Double(function.views.reduce(0) { $0 + value($1.0) }))
      }
    }
    metrics.add("hearth_function_workers", .gauge, "Workers of a function, in any state.", each(\.workers.count))
    metrics.add("hearth_function_queued", .gauge, "Requests that wait for a worker.", each(\.queued))
    metrics.add("hearth_function_in_flight", .gauge, "Requests that a worker has.", each(\.inFlight))
    metrics.add(
      "hearth_function_requests_total", .counter,
      "Requests that found a worker there or on its way (warm), and that one was started for (cold). "
        + "Begins anew with each version.",
      functions.flatMap { function in
        [("warm", \Usage.hits, function.removed.hits), ("cold", \Usage.misses, function.removed.misses)]
          .map { start, count, removed in
            Sample(
              labels: ["function": function.name, "start": start],
              value: Double(function.views.reduce(removed) { $0 + $1.1[keyPath: count] }))
          }
      })
  }

  private func addModels(to metrics: inout MetricsText) {
    let models = registry.served.filter(\.hasModels).flatMap { served in
      served.modelViews().map { (function: served.version.name.rawValue, view: $0) }
    }
    let used = models.filter { $0.view.usage.hits + $0.view.usage.misses > 0 }
    func each(_ value: (ServedFunction.ModelView) -> Double) -> [Sample] {
      used.map { model in
        Sample(labels: ["function": model.function, "model": model.view.model.name.rawValue], value: value(model.view))
      }
    }
    metrics.add(
      "hearth_model_hits_total", .counter, "Requests whose model was there or on its way.",
      each { Double($0.usage.hits) })
    metrics.add(
      "hearth_model_misses_total", .counter, "Requests that a model was brought in for, by the tier it was in.",
      used.flatMap { model in
        let usage = model.view.usage
        let restores = model.view.restores
        return [("disk", max(0, usage.misses - restores)), ("host", restores)].map { tier, count in
          Sample(
            labels: ["function": model.function, "model": model.view.model.name.rawValue, "tier": tier],
            value: Double(count))
        }
      })
    metrics.add("hearth_model_loads_total", .counter, "Loads and restores.", each { Double($0.usage.loads) })
    metrics.add(
      "hearth_model_load_seconds", .gauge, "How long the last of them took, with its worker's start.",
      each { $0.usage.loadTime?.seconds ?? 0 })
    metrics.add("hearth_model_queued", .gauge, "Requests that wait for a model.", each { Double($0.queued) })
    metrics.add(
      "hearth_model_bytes", .gauge, "What models take that are on a device or kept in the host's memory.",
      models.filter { $0.view.tier != .disk }.map { model in
        Sample(
          labels: [
            "function": model.function, "model": model.view.model.name.rawValue, "tier": model.view.tier.rawValue,
          ],
          value: Double((model.view.measured ?? model.view.expected).bytes))
      })
  }
}
