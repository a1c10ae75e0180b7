import Foundation
import HearthCore
import HearthHTTP1
import NIOCore

/// Something of a client's that time limits and an orderly end apply to.
protocol SweptConnection: AnyObject {
  /// Called about four times a second.
  func timePassed(now: HearthInstant)
  /// The gateway shuts down: end with the current response.
  func drain()
}

/// What the connections of one event loop share: a request id sequence, the date, and a sweep four times a second that
/// enforces every time limit. Used on its loop only.
final class LoopServices {
  let gate: RequestGate
  let batch: FlushBatch
  /// 250 ms: time limits are seconds, so being late by this much is not noticed.
  static let sweepInterval = TimeAmount.milliseconds(250)

  /// Nil unless the gateway keeps an access log.
  let accessLines: AccessLines?

  private let clock: any HearthClock
  private let prefix: String
  private var sequence: UInt32 = 0
  private var connections: [ObjectIdentifier: any SweptConnection] = [:]
  private(set) var dateField = LoopServices.currentDateField()
  /// Set while the listener drains: connections end with their current response.
  private(set) var isDraining = false

  init(gate: RequestGate, clock: any HearthClock, loop: any EventLoop, accessLog: AccessLog?) {
    self.gate = gate
    accessLines = accessLog.map(AccessLines.init)
    batch = FlushBatch.of(loop)
    self.clock = clock
    prefix = "r-" + String(UInt32.random(in: .min ... .max), radix: 36) + "-"
  }

  var limits: HTTPLimits { gate.limits }

  var now: HearthInstant { clock.now }

  /// An instant as nanoseconds since 1970.
  func unixTime(of instant: HearthInstant) -> Int64 { instant.nanoseconds + clock.wallOffset.nanoseconds }

  /// A request id that is unique with overwhelming likelihood and short enough to read out.
  func nextRequestID() -> String {
    sequence &+= 1
    return prefix + String(sequence, radix: 36)
  }

  /// What was received is no request: it gets an id and a line in the access log all the same.
  func noteRefusal(_ error: HearthError, client: String?) -> String {
    let request = nextRequestID()
    if let accessLines {
      var entry = AccessEntry(time: unixTime(of: now), request: request, client: client ?? "")
      entry.status = error.code.status
      entry.code = error.code
      accessLines.add(entry)
    }
    return request
  }

  func add(_ connection: any SweptConnection) { connections[ObjectIdentifier(connection)] = connection }

  func remove(_ connection: any SweptConnection) { connections[ObjectIdentifier(connection)] = nil }

  func sweep() {
    dateField = LoopServices.currentDateField()
    let now = clock.now
    for connection in Array(connections.values) { connection.timePassed(now: now) }
    accessLines?.handOver()
  }

  func drain() {
    isDraining = true
    for connection in Array(connections.values) { connection.drain() }
  }

  /// The Date field line (RFC 9110, section 6.6.1).
  private static func currentDateField() -> String {
    var seconds = time(nil)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    var text = [CChar](repeating: 0, count: 48)
    let count = strftime(&text, text.count, "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)
    return String(decoding: text[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
