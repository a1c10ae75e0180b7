import HearthBundle
import HearthConfiguration
import HearthCore
import HearthDispatch
import HearthHTTP
import HearthWorker
import Logging
import NIOCore

/// The one configuration tree, cut into what each module asks for.
extension GatewayConfiguration {
  /// One loop for two cores: the other half is the workers'.
  var eventLoopCount: Int { eventLoops > 0 ? eventLoops : max(1, System.coreCount / 2) }

  var nodeLimits: NodeLimits {
    var limits = NodeLimits(memory: workersMemoryBudget, startsMax: startsLimit, eviction: eviction)
    limits.deviceMemory = deviceMemory
    if let hostCache { limits.hostCache = hostCache }
    limits.loadsMax = loadsMax
    return limits
  }

  var simulatedDevices: [Device] {
    (0..<simulated.count).map { .simulated($0, memory: simulated.memory, bandwidth: simulated.bandwidth) }
  }

  /// What workers may take: as set, or four fifths of what the machine, or the control group, has.
  var workersMemoryBudget: ByteSize { workersMemory ?? ByteSize(bytes: MachineMemory.total.bytes / 5 * 4) }

  /// Two for every core: one loads while the other waits for its disk.
  var startsLimit: Int { startsMax > 0 ? startsMax : max(2, 2 * System.coreCount) }

  var scheme: String { tlsCertificate == nil ? "http" : "https" }

  /// Where this machine itself reaches the data plane.
  func localAddress(port: Int) -> String {
    let isWildcard = ["0.0.0.0", "::"].contains(listen.host)
    return "\(scheme)://\(HostPort(host: isWildcard ? "127.0.0.1" : listen.host, port: port))"
  }

  var httpLimits: HTTPLimits {
    var limits = HTTPLimits()
    limits.headMax = headMax
    limits.bodyMax = bodyMax
    limits.connectionsMax = connectionsMax
    limits.headTimeout = headerTimeout
    limits.bodyTimeout = bodyTimeout
    limits.keepAliveTimeout = idleConnectionTimeout
    limits.stallTimeout = clientStallTimeout
    limits.requestsPerClientMax = requestsPerClientMax
    limits.keys = keys
    return limits
  }

  /// What the data plane shows its clients; nil for cleartext.
  func certificate() throws -> TLSCertificate? {
    guard let tlsCertificate, let tlsKey else { return nil }
    return try TLSCertificate(certificate: tlsCertificate, key: tlsKey)
  }

  var bundleLimits: BundleLimits {
    var limits = BundleLimits()
    limits.filesMax = bundleFilesMax
    limits.bytesMax = bundleBytesMax
    limits.ratioMax = bundleRatioMax
    return limits
  }
}

extension Logger {
  /// For libraries whose info is our debug.
  var quieter: Logger {
    var logger = self
    logger.logLevel = max(logLevel, .warning)
    return logger
  }
}
