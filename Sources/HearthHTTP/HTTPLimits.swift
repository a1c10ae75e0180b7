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
  /// 30 s without a byte of a body, and as long until `bodyRateMin` counts.
  public var bodyTimeout = Duration.seconds(30)
  /// 500 bytes a second: a tenth of the slowest modem's; Apache's mod_reqtimeout has the same.
  public var bodyRateMin = 500
  /// Requests in flight of one client: of one key, or of one address where there are no keys. 0 does not count them.
  public var requestsPerClientMax = 0
  /// 128 requests at once on one HTTP/2 connection, as nginx has it.
  public var streamsMax = 128
  /// Keys of which requests must carry one (`Authorization: Bearer …`); empty leaves the data plane open.
  public var keys: [String] = []

  public init() {}
}
