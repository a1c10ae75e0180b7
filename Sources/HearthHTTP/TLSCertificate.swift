import HearthCore
import NIOCore
import NIOSSL

/// The certificate that the data plane shows, and the rules of its TLS: 1.2 or later, HTTP/2 or HTTP/1.1 by ALPN.
public struct TLSCertificate: Sendable {
  let context: NIOSSLContext

  /// Reads both files. Throws `configuration_invalid` when they do not hold a certificate chain and its key.
  ///
  /// - Parameters:
  ///   - certificate: a PEM file with the server's certificate first, then those that vouch for it.
  ///   - key: a PEM file with the private key.
  public init(certificate: String, key: String) throws {
    do {
      let chain = try NIOSSLCertificate.fromPEMFile(certificate).map { NIOSSLCertificateSource.certificate($0) }
      var configuration = TLSConfiguration.makeServerConfiguration(
        certificateChain: chain, privateKey: .privateKey(try NIOSSLPrivateKey(file: key, format: .pem)))
      configuration.minimumTLSVersion = .tlsv12
      configuration.applicationProtocols = ["h2", "http/1.1"]
      context = try NIOSSLContext(configuration: configuration)
    } catch {
      throw HearthError(
        .configurationInvalid, "The files of tls-certificate and tls-key cannot be used.",
        hint: "Give PEM files: the certificate chain, and the private key that belongs to it.",
        cause: String(describing: error))
    }
  }
}
