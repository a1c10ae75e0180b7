import HearthCore
import HearthDispatch
import Hummingbird

/// One model, as JSON. Sizes are bytes, times seconds.
public struct ModelView: Decodable, ResponseEncodable {
  public let model: String
  /// `cold`, `waiting`, `loading`, `idle`, `busy`, `unloading` or `failing`.
  public let state: String
  /// Where it is: on its `device`, kept in the memory of its `host`, or on `disk` alone.
  public let tier: String
  /// The devices it is on, `cpu` for the machine's memory.
  public let devices: [String]
  public let pinned: Bool
  public let priority: Int
  /// Whether it was added after the deploy.
  public let added: Bool
  public let fileBytes: Int64
  /// What is reserved for it before it was measured.
  public let expectedBytes: Int64
  public let measuredBytes: Int64?
  public let hits: Int
  public let misses: Int
  public let loads: Int
  /// How many of the misses brought it back from the host's memory.
  public let restores: Int
  public let loadSeconds: Double?
  public let unusedSeconds: Double?
  public let queued: Int
  public let reason: String?

  init(_ view: ServedFunction.ModelView) {
    model = view.model.name.rawValue
    state = view.state.rawValue
    tier = view.tier.rawValue
    devices = view.tier == .device ? view.devices : []
    pinned = view.model.settings.isPinned
    priority = view.model.settings.priority
    added = view.model.isAdded
    fileBytes = view.model.bytes
    expectedBytes = view.expected.bytes
    measuredBytes = view.measured?.bytes
    hits = view.usage.hits
    misses = view.usage.misses
    loads = view.usage.loads
    restores = view.restores
    loadSeconds = view.usage.loadTime?.seconds
    unusedSeconds = view.unused?.seconds
    queued = view.queued
    reason = view.failure
  }
}

/// A device whose memory workers and models share, as JSON. Sizes are bytes, times seconds.
public struct DeviceView: Decodable, ResponseEncodable {
  public let device: String
  /// What it is sold as; nil of the machine's own memory, `simulated` of one that is not there.
  public let model: String?
  public let budgetBytes: Int64
  /// What workers hold or are reserved.
  public let grantedBytes: Int64
  /// What the gateway's own processes take: zygotes and spares.
  public let overheadBytes: Int64
  public let workers: Int
  public let waiting: Int
  public let eviction: String
  /// Idle workers that made room, and how long they had been idle on average.
  public let evictions: Int
  public let evictionIdleSeconds: Double?
  /// Workers in use that made room for others that had waited too long.
  public let yields: Int
  /// What is wrong with it; nil when nothing is.
  public let note: String?

  init(_ view: LedgerView) {
    device = view.name
    model = view.model
    budgetBytes = view.budget.bytes
    grantedBytes = view.granted.bytes
    overheadBytes = view.overhead.bytes
    workers = view.workers
    waiting = view.waiting
    eviction = view.eviction.rawValue
    evictions = view.evictions
    evictionIdleSeconds = view.evictionIdle?.seconds
    yields = view.yields
    note = view.note
  }
}
