import Foundation
import HearthCore
import NIOCore

/// Turns control messages into lines of JSON and back. A message is an object with a `type`; its other members are
/// that type's own.
public enum ControlCodec {
  /// The message as one line, ended by a line feed.
  public static func encode(_ message: some ControlMessageCoding) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let line = [UInt8](try encoder.encode(Envelope(message: message))) + [UInt8(ascii: "\n")]
    guard line.count <= ControlMessage.lengthMax else {
      throw HearthError(
        .internalError, "A control message is larger than \(ByteSize(bytes: Int64(ControlMessage.lengthMax)).rounded).",
        hint: "Shorten 'config' and 'env' in function.yaml.")
    }
    return line
  }

  public static func decode<Message: ControlMessageCoding>(
    _ type: Message.Type, from line: ByteBuffer
  ) throws -> Message {
    let data = Data(line.readableBytesView)
    do {
      return try JSONDecoder().decode(Envelope<Message>.self, from: data).message
    } catch {
      throw HearthError(
        .internalError, "A worker sent a control message that is not valid.", cause: String(describing: error))
    }
  }
}

/// A message enum whose cases are told apart by `type` on the wire.
public protocol ControlMessageCoding: Sendable {
  init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws
  var type: String { get }
  func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws
}

/// The name of a member of a control message.
public struct ControlKey: CodingKey, ExpressibleByStringLiteral {
  public let stringValue: String
  public var intValue: Int? { nil }

  public init(stringLiteral value: String) { stringValue = value }
  public init?(stringValue: String) { self.stringValue = stringValue }
  public init?(intValue: Int) { nil }
}

private struct Envelope<Message: ControlMessageCoding>: Codable {
  let message: Message

  init(message: Message) { self.message = message }

  init(from decoder: any Decoder) throws {
    let members = try decoder.container(keyedBy: ControlKey.self)
    message = try Message(type: members.decode(String.self, forKey: "type"), from: members)
  }

  func encode(to encoder: any Encoder) throws {
    var members = encoder.container(keyedBy: ControlKey.self)
    try members.encode(message.type, forKey: "type")
    try message.encode(into: &members)
  }
}

extension ControlMessage {
  /// A number of bytes as a worker says it, brought into a range that can be added up.
  fileprivate static func plausible(_ bytes: Int64) -> Int64 { min(max(bytes, 0), 1 << 50) }
}

extension Double {
  fileprivate func clamped(to range: ClosedRange<Double>) -> Double {
    isNaN ? range.lowerBound : min(max(self, range.lowerBound), range.upperBound)
  }
}

private func unknown(_ type: String, _ members: KeyedDecodingContainer<ControlKey>) -> DecodingError {
  DecodingError.dataCorruptedError(forKey: "type", in: members, debugDescription: "unknown type '\(type)'")
}

extension ZygoteCommand: ControlMessageCoding {
  public var type: String {
    switch self {
    case .start: "start"
    case .signal: "signal"
    }
  }

  public init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws {
    switch type {
    case "start": self = .start(try members.decode(WorkerLaunch.self, forKey: "launch"))
    case "signal":
      self = .signal(
        worker: try members.decode(String.self, forKey: "worker"),
        number: try members.decode(Int32.self, forKey: "number"))
    default: throw unknown(type, members)
    }
  }

  public func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws {
    switch self {
    case .start(let launch): try members.encode(launch, forKey: "launch")
    case .signal(let worker, let number):
      try members.encode(worker, forKey: "worker")
      try members.encode(number, forKey: "number")
    }
  }
}

extension ZygoteReport: ControlMessageCoding {
  public var type: String {
    switch self {
    case .ready: "ready"
    case .failed: "failed"
    case .started: "started"
    case .exited: "exited"
    }
  }

  public init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws {
    switch type {
    case "ready":
      self = .ready(
        pid: try members.decode(Int32.self, forKey: "pid"),
        threads: try members.decode(Int.self, forKey: "threads"),
        forkable: try members.decode(Bool.self, forKey: "forkable"),
        warning: try members.decodeIfPresent(String.self, forKey: "warning"),
        missing: try members.decode([String: String].self, forKey: "missing"))
    case "failed": self = .failed(reason: try members.decode(String.self, forKey: "reason"))
    case "started":
      self = .started(
        worker: try members.decode(String.self, forKey: "worker"), pid: try members.decode(Int32.self, forKey: "pid"))
    case "exited":
      self = .exited(
        worker: try members.decode(String.self, forKey: "worker"),
        status: try members.decodeIfPresent(Int32.self, forKey: "status"),
        signal: try members.decodeIfPresent(Int32.self, forKey: "signal"),
        peakBytes: try members.decode(Int64.self, forKey: "peak_bytes"))
    default: throw unknown(type, members)
    }
  }

  public func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws {
    switch self {
    case .ready(let pid, let threads, let forkable, let warning, let missing):
      try members.encode(pid, forKey: "pid")
      try members.encode(threads, forKey: "threads")
      try members.encode(forkable, forKey: "forkable")
      try members.encodeIfPresent(warning, forKey: "warning")
      try members.encode(missing, forKey: "missing")
    case .failed(let reason): try members.encode(reason, forKey: "reason")
    case .started(let worker, let pid):
      try members.encode(worker, forKey: "worker")
      try members.encode(pid, forKey: "pid")
    case .exited(let worker, let status, let signal, let peakBytes):
      try members.encode(worker, forKey: "worker")
      try members.encodeIfPresent(status, forKey: "status")
      try members.encodeIfPresent(signal, forKey: "signal")
      try members.encode(peakBytes, forKey: "peak_bytes")
    }
  }
}

extension WorkerCommand: ControlMessageCoding {
  public var type: String {
    switch self {
    case .connect: "connect"
    case .cancel: "cancel"
    case .withdraw: "withdraw"
    case .load: "load"
    case .unload: "unload"
    case .discard: "discard"
    case .drain: "drain"
    }
  }

  public init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws {
    switch type {
    case "connect": self = .connect
    case "cancel": self = .cancel(request: try members.decode(String.self, forKey: "request"))
    case "withdraw": self = .withdraw(request: try members.decode(String.self, forKey: "request"))
    case "load": self = .load(try members.decode(WorkerLaunch.Model.self, forKey: "model"))
    case "unload": self = .unload(keep: try members.decode(Bool.self, forKey: "keep"))
    case "discard": self = .discard(try members.decode(WorkerLaunch.Model.self, forKey: "model"))
    case "drain": self = .drain
    default: throw unknown(type, members)
    }
  }

  public func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws {
    switch self {
    case .connect, .drain: break
    case .load(let model), .discard(let model): try members.encode(model, forKey: "model")
    case .unload(let keep): try members.encode(keep, forKey: "keep")
    case .cancel(let request), .withdraw(let request): try members.encode(request, forKey: "request")
    }
  }
}

extension WorkerReport: ControlMessageCoding {
  public var type: String {
    switch self {
    case .loading: "loading"
    case .waiting: "waiting"
    case .progress: "progress"
    case .ready: "ready"
    case .withdrawn: "withdrawn"
    case .measured: "measured"
    case .unloaded: "unloaded"
    case .failed: "failed"
    }
  }

  public init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws {
    switch type {
    case "loading": self = .loading
    case "waiting": self = .waiting(keeps: try members.decode(Bool.self, forKey: "keeps"))
    case "progress":
      // A worker runs code that is not trusted: its numbers are brought into range, not believed.
      let fraction = try members.decodeIfPresent(Double.self, forKey: "fraction")
      self = .progress(
        fraction: fraction.map { $0.clamped(to: 0...1) },
        note: try members.decodeIfPresent(String.self, forKey: "note").map { $0.printable(limit: 200) })
    case "ready":
      // 31 years at most: any duration that can be added up.
      self = .ready(
        loadSeconds: try members.decode(Double.self, forKey: "load_seconds").clamped(to: 0...1e9),
        isRestored: try members.decode(Bool.self, forKey: "restored"))
    case "withdrawn": self = .withdrawn(request: try members.decode(String.self, forKey: "request"))
    case "measured":
      self = .measured(
        bytes: ControlMessage.plausible(try members.decode(Int64.self, forKey: "bytes")),
        peakBytes: ControlMessage.plausible(try members.decode(Int64.self, forKey: "peak_bytes")))
    case "unloaded": self = .unloaded(isKept: try members.decode(Bool.self, forKey: "kept"))
    case "failed":
      self = .failed(
        type: try members.decode(String.self, forKey: "error_type"),
        message: try members.decode(String.self, forKey: "message"),
        traceback: try members.decode(String.self, forKey: "traceback"),
        isOutOfMemory: try members.decodeIfPresent(Bool.self, forKey: "out_of_memory") ?? false)
    default: throw unknown(type, members)
    }
  }

  public func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws {
    switch self {
    case .loading: break
    case .waiting(let keeps): try members.encode(keeps, forKey: "keeps")
    case .unloaded(let isKept): try members.encode(isKept, forKey: "kept")
    case .progress(let fraction, let note):
      try members.encodeIfPresent(fraction, forKey: "fraction")
      try members.encodeIfPresent(note, forKey: "note")
    case .ready(let loadSeconds, let isRestored):
      try members.encode(loadSeconds, forKey: "load_seconds")
      try members.encode(isRestored, forKey: "restored")
    case .withdrawn(let request): try members.encode(request, forKey: "request")
    case .measured(let bytes, let peakBytes):
      try members.encode(bytes, forKey: "bytes")
      try members.encode(peakBytes, forKey: "peak_bytes")
    case .failed(let type, let message, let traceback, let isOutOfMemory):
      try members.encode(type, forKey: "error_type")
      try members.encode(message, forKey: "message")
      try members.encode(traceback, forKey: "traceback")
      try members.encode(isOutOfMemory, forKey: "out_of_memory")
    }
  }
}

extension Addressed: ControlMessageCoding {
  public var type: String { message.type }

  public init(type: String, from members: KeyedDecodingContainer<ControlKey>) throws {
    self.init(
      try Message(type: type, from: members), worker: try members.decodeIfPresent(String.self, forKey: "worker"))
  }

  public func encode(into members: inout KeyedEncodingContainer<ControlKey>) throws {
    try message.encode(into: &members)
    try members.encodeIfPresent(worker, forKey: "worker")
  }
}
