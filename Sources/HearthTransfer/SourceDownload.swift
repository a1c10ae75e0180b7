import Foundation
import HearthCore

/// Fetches a weight file from `https://`, `http://` or `s3://BUCKET/KEY`, going on where an earlier try stopped.
public enum SourceDownload {
  /// How often a broken transfer is taken up again before it counts as failed.
  static let attemptsMax = 4

  /// Downloads to `path`, appending to what is there. Throws `source_failed`.
  ///
  /// - Parameter progress: bytes on disk so far, and in all (0 when unknown).
  public static func fetch(
    _ source: String, to path: String, progress: (_ moved: Int64, _ total: Int64) -> Void
  ) throws {
    let (url, region) = try resolve(source)
    var failure = "no attempt was made"
    for attempt in 0..<attemptsMax {
      if attempt > 0 { Thread.sleep(forTimeInterval: Double(1 << attempt) * 0.25) }
      do {
        let status = try attemptFetch(url, region, path, progress)
        switch status {
        case 200, 206, 416: return
        case 429, 500...599: failure = "the server answered \(status)"
        default: throw HearthError(.sourceFailed, "\(Transfer.host(of: url)) answered \(status) for a weight file.")
        }
      } catch let error as HearthError where error.code == .gatewayUnreachable {
        failure = error.message
      }
    }
    throw HearthError(
      .sourceFailed, "A weight file could not be fetched: \(failure)", hint: "Deploy again to go on where it stopped.")
  }

  private static func attemptFetch(
    _ url: String, _ region: String?, _ path: String, _ progress: (Int64, Int64) -> Void
  ) throws -> Int {
    guard let file = fopen(path, "ae") else {
      throw HearthError(.internalError, "A weight file could not be stored.", cause: path)
    }
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    let present = Int64(ftell(file))
    return try withoutActuallyEscaping(progress) { progress in
      let transfer = Transfer("GET", url)
      transfer.s3Region = region
      transfer.resumeOffset = present
      transfer.progress = { moved, total in
        progress(present + moved, total > 0 ? present + total : 0)
        return true
      }
      // A server that ignores the range answers 200 with the whole file: libcurl then fails the transfer, and the
      // file is begun anew.
      transfer.receive = { bytes in fwrite(bytes.baseAddress, 1, bytes.count, file) == bytes.count }
      do {
        let response = try transfer.run()
        if response.status >= 300, response.status != 416 { truncate(path, off_t(present)) }
        return response.status
      } catch let error as HearthError where present > 0 && error.message.contains("byte range") {
        truncate(path, 0)
        throw error
      }
    }
  }

  /// An `s3://` source as the URL to ask, with the region to sign for.
  static func resolve(_ source: String) throws -> (url: String, region: String?) {
    if source.hasPrefix("https://") || source.hasPrefix("http://") { return (source, nil) }
    guard source.hasPrefix("s3://") else {
      throw HearthError(
        .sourceFailed, "The source '\(source.printable(limit: 120))' has no known scheme.",
        hint: "Use https://, http:// or s3://BUCKET/KEY.")
    }
    let rest = source.dropFirst(5)
    guard let slash = rest.firstIndex(of: "/"), slash > rest.startIndex else {
      throw HearthError(.sourceFailed, "An S3 source is written s3://BUCKET/KEY.")
    }
    let environment = ProcessInfo.processInfo.environment
    let region = environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? "us-east-1"
    let endpoint = environment["AWS_ENDPOINT_URL_S3"] ?? environment["AWS_ENDPOINT_URL"]
    let key = rest[rest.index(after: slash)...]
    let base = endpoint.map { "\($0)/\(rest[..<slash])" } ?? "https://\(rest[..<slash]).s3.\(region).amazonaws.com"
    return ("\(base)/\(key)", region)
  }
}
