import CCurl
import CCurlShim
import Foundation
import HearthCore

/// One HTTP(S) or S3 transfer through libcurl, blocking the calling thread.
///
/// Proxies, TLS roots and `.netrc` are libcurl's own affair; `AWS_ACCESS_KEY_ID` and its companions sign S3 requests.
public final class Transfer {
  /// What is sent.
  public enum Body {
    case none
    case bytes([UInt8])
    case file(path: String, size: Int64)
  }

  public struct Response: Sendable {
    public let status: Int
    /// Field names in lower case.
    public let fields: [String: String]
    public let body: [UInt8]
  }

  public var method: String
  public var url: String
  public var headers: [(name: String, value: String)] = []
  public var body = Body.none
  /// Seconds to establish the connection.
  public var connectTimeout = Duration.seconds(10)
  /// The transfer is given up when it moves less than a byte a second for this long. Nil waits for ever.
  public var stallTimeout: Duration? = .seconds(60)
  /// Continues a download at this offset.
  public var resumeOffset: Int64 = 0
  /// Signs the request for S3 in this region (AWS Signature Version 4).
  public var s3Region: String?
  /// Whether a server must show a certificate that is trusted and its own. Off only for this machine's own gateway.
  public var verifiesServer = true
  /// Called with what has moved and what is expected (0 when unknown). Return false to give up.
  public var progress: ((_ moved: Int64, _ total: Int64) -> Bool)?
  /// Takes the body as it arrives instead of keeping it. Return false to give up.
  public var receive: ((UnsafeRawBufferPointer) -> Bool)?

  public init(_ method: String, _ url: String) {
    self.method = method
    self.url = url
  }

  /// Runs the transfer. A response of any status is returned; throws `gateway_unreachable` when there is none.
  public func run() throws -> Response {
    Transfer.initialised
    guard let handle = curl_easy_init() else {
      throw HearthError(.internalError, "The transfer library could not be started.")
    }
    defer { curl_easy_cleanup(handle) }
    let state = TransferState(self)
    let list = headers.reduce(nil as UnsafeMutablePointer<curl_slist>?) { list, header in
      curl_slist_append(list, "\(header.name): \(header.value)")
    }
    defer { curl_slist_free_all(list) }
    try configure(handle, list, Unmanaged.passUnretained(state).toOpaque())
    defer { state.close() }
    let code = withExtendedLifetime(state) { curl_easy_perform(handle) }
    guard code == CURLE_OK else {
      throw HearthError(
        .gatewayUnreachable, "No answer from \(Transfer.host(of: url)): \(String(cString: curl_easy_strerror(code))).")
    }
    return Response(status: hearth_curl_status(handle), fields: state.fields, body: state.received)
  }

  private static let initialised: Void = { _ = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) }()

  /// The part of a URL that may stand in a message: credentials and query may not.
  static func host(of url: String) -> String {
    guard let components = URLComponents(string: url), let host = components.host else { return "the server" }
    return components.port.map { "\(host):\($0)" } ?? host
  }

  private func configure(
    _ handle: UnsafeMutableRawPointer, _ list: UnsafeMutablePointer<curl_slist>?, _ state: UnsafeMutableRawPointer
  ) throws {
    hearth_curl_set_string(handle, CURLOPT_URL, url)
    hearth_curl_set_string(handle, CURLOPT_CUSTOMREQUEST, method)
    hearth_curl_set_list(handle, CURLOPT_HTTPHEADER, list)
    hearth_curl_set_string(handle, CURLOPT_PROTOCOLS_STR, "http,https")
    hearth_curl_set_string(handle, CURLOPT_REDIR_PROTOCOLS_STR, "http,https")
    hearth_curl_set_long(handle, CURLOPT_FOLLOWLOCATION, method == "GET" ? 1 : 0)
    hearth_curl_set_long(handle, CURLOPT_MAXREDIRS, 5)
    hearth_curl_set_long(handle, CURLOPT_NOSIGNAL, 1)
    if !verifiesServer {
      hearth_curl_set_long(handle, CURLOPT_SSL_VERIFYPEER, 0)
      hearth_curl_set_long(handle, CURLOPT_SSL_VERIFYHOST, 0)
    }
    hearth_curl_set_long(handle, CURLOPT_NOBODY, method == "HEAD" ? 1 : 0)
    hearth_curl_set_long(handle, CURLOPT_CONNECTTIMEOUT_MS, Int(connectTimeout.milliseconds))
    if let stallTimeout {
      hearth_curl_set_long(handle, CURLOPT_LOW_SPEED_LIMIT, 1)
      hearth_curl_set_long(handle, CURLOPT_LOW_SPEED_TIME, max(1, Int(stallTimeout.seconds)))
    }
    if resumeOffset > 0 { hearth_curl_set_offset(handle, CURLOPT_RESUME_FROM_LARGE, curl_off_t(resumeOffset)) }
    if let s3Region { signForS3(handle, region: s3Region) }
    switch body {
    case .none: break
    case .bytes(let bytes):
      hearth_curl_set_long(handle, CURLOPT_UPLOAD, 1)
      hearth_curl_set_offset(handle, CURLOPT_INFILESIZE_LARGE, curl_off_t(bytes.count))
    case .file(_, let size):
      hearth_curl_set_long(handle, CURLOPT_UPLOAD, 1)
      hearth_curl_set_offset(handle, CURLOPT_INFILESIZE_LARGE, curl_off_t(size))
    }
    hearth_curl_set_pointer(handle, CURLOPT_READDATA, state)
    hearth_curl_set_pointer(handle, CURLOPT_WRITEDATA, state)
    hearth_curl_set_pointer(handle, CURLOPT_HEADERDATA, state)
    hearth_curl_set_pointer(handle, CURLOPT_XFERINFODATA, state)
    hearth_curl_set_transfer(handle, CURLOPT_READFUNCTION) { TransferState.of($3).send($0!, $1 * $2) }
    hearth_curl_set_transfer(handle, CURLOPT_WRITEFUNCTION) { TransferState.of($3).take($0!, $1 * $2) }
    hearth_curl_set_transfer(handle, CURLOPT_HEADERFUNCTION) { TransferState.of($3).header($0!, $1 * $2) }
    hearth_curl_set_long(handle, CURLOPT_NOPROGRESS, progress == nil ? 1 : 0)
    hearth_curl_set_progress(handle) { TransferState.of($0).report(down: $2, downTotal: $1, up: $4, upTotal: $3) }
  }

  private func signForS3(_ handle: UnsafeMutableRawPointer, region: String) {
    let environment = ProcessInfo.processInfo.environment
    guard let key = environment["AWS_ACCESS_KEY_ID"], let secret = environment["AWS_SECRET_ACCESS_KEY"] else { return }
    hearth_curl_set_string(handle, CURLOPT_AWS_SIGV4, "aws:amz:\(region):s3")
    hearth_curl_set_string(handle, CURLOPT_USERPWD, "\(key):\(secret)")
  }
}

/// What libcurl's callbacks work on while a transfer runs.
private final class TransferState {
  let transfer: Transfer
  var fields: [String: String] = [:]
  var received: [UInt8] = []
  /// Of the answer that is being received; several come when there are redirections.
  private var status = 0
  private var sent = 0
  private var file: UnsafeMutablePointer<FILE>?

  init(_ transfer: Transfer) {
    self.transfer = transfer
    if case .file(let path, _) = transfer.body { file = fopen(path, "re") }
  }

  static func of(_ pointer: UnsafeMutableRawPointer?) -> TransferState {
    Unmanaged<TransferState>.fromOpaque(pointer!).takeUnretainedValue()
  }

  func close() {
    if let file { fclose(file) }
    file = nil
  }

  func send(_ target: UnsafeMutablePointer<CChar>, _ capacity: Int) -> Int {
    switch transfer.body {
    case .none: return 0
    case .bytes(let bytes):
      let count = min(capacity, bytes.count - sent)
      guard count > 0 else { return 0 }
      bytes.withUnsafeBytes { source in
        UnsafeMutableRawPointer(target).copyMemory(from: source.baseAddress! + sent, byteCount: count)
      }
      sent += count
      return count
    case .file:
      guard let file else { return Int(CURL_READFUNC_ABORT) }
      return fread(target, 1, capacity, file)
    }
  }

  func take(_ bytes: UnsafeMutablePointer<CChar>, _ count: Int) -> Int {
    let raw = UnsafeRawBufferPointer(start: bytes, count: count)
    // What an error says is the caller's, not the receiver's.
    if let receive = transfer.receive {
      if status < 400 { return receive(raw) ? count : 0 }
      // 1 MiB: an error says what it has to say in less.
      if received.count + count > 1 << 20 { return count }
    }
    received.append(contentsOf: raw)
    return count
  }

  func header(_ bytes: UnsafeMutablePointer<CChar>, _ count: Int) -> Int {
    let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    if let colon = line.firstIndex(of: ":") {
      let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespacesAndNewlines)
      fields[line[..<colon].lowercased()] = value
    } else if line.hasPrefix("HTTP/") {
      fields.removeAll()
      status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    }
    return count
  }

  func report(down: curl_off_t, downTotal: curl_off_t, up: curl_off_t, upTotal: curl_off_t) -> Int32 {
    let isUpload = upTotal > 0
    let goesOn = transfer.progress?(Int64(isUpload ? up : down), Int64(isUpload ? upTotal : downTotal)) ?? true
    return goesOn ? 0 : 1
  }
}
