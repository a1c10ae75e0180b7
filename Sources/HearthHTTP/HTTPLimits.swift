import HearthCore

/// What one client may cost the data plane.
public struct HTTPLimits: Sendable {
  /// 32 KiB: four times what browsers and gateways commonly send.
  public var headMax = ByteSize.kib(32)
  /// 100 MiB: an hour of compressed speech, a batch of photographs.
  public var bodyMax = ByteSize.mib(100)
  /// 10,000 connections at once.
  public var connectionsMax = 10_000
  /// 30 s: from a connection's or a request's first byte to the end of its head.
  public var headTimeout = Duration.seconds(30)
  /// 75 s without a request on a connection that is kept alive, as nginx has it.
  public var keepAliveTimeout = Duration.seconds(75)
  /// 60 s during which a client takes nothing of a response.
  public var stallTimeout = Duration.seconds(60)
  /// Keys of which requests must carry one (`Authorization: Bearer …`); empty leaves the data plane open.
  public var keys: [String] = []

  public init() {}
}
