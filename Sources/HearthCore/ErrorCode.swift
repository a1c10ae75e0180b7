/// A stable error code and the HTTP status it travels with. Codes are never reused or renamed within a major version.
public struct ErrorCode: Hashable, Sendable, CustomStringConvertible {
  public let name: String
  public let status: Int

  init(_ name: String, _ status: Int) {
    self.name = name
    self.status = status
  }

  public var description: String { name }
}

// Requests on the data plane.
extension ErrorCode {
  /// The bytes received are not an HTTP request that Hearth accepts (RFC 9112).
  public static let requestMalformed = ErrorCode("request_malformed", 400)
  /// The request head did not arrive in time.
  public static let requestTimeout = ErrorCode("request_timeout", 408)
  /// The request body is larger than `body-max`.
  public static let bodyTooLarge = ErrorCode("body_too_large", 413)
  /// The request head is larger than `header-max`.
  public static let headTooLarge = ErrorCode("head_too_large", 431)
  /// No route of the data plane has this path.
  public static let routeNotFound = ErrorCode("route_not_found", 404)
  /// No function of this name is deployed.
  public static let functionNotFound = ErrorCode("function_not_found", 404)
  /// The function has many models and the request names none.
  public static let modelMissing = ErrorCode("model_missing", 400)
  /// The function has no model of this name.
  public static let modelNotFound = ErrorCode("model_not_found", 404)
  /// The request needs a protocol feature that Hearth does not offer.
  public static let notImplemented = ErrorCode("not_implemented", 501)
}

// Waiting for a worker.
extension ErrorCode {
  /// The function's queue holds `max-queue-length` requests already.
  public static let queueFull = ErrorCode("queue_full", 503)
  /// No worker became free within `cold-start-timeout`.
  public static let coldStartTimeout = ErrorCode("cold_start_timeout", 504)
  /// The function's workers failed to start repeatedly; the message carries the reason of the last failure.
  public static let loadFailed = ErrorCode("load_failed", 503)
  /// The worker or model does not fit into its device's memory; the message carries the numbers.
  public static let memoryExhausted = ErrorCode("memory_exhausted", 507)
  /// The function was deleted while the request waited.
  public static let functionGone = ErrorCode("function_gone", 503)
  /// The gateway is shutting down.
  public static let shuttingDown = ErrorCode("shutting_down", 503)
  /// The client has `requests-per-client-max` requests in flight already.
  public static let clientBusy = ErrorCode("client_busy", 429)
  /// The listener holds `connections-max` connections already.
  public static let connectionsExhausted = ErrorCode("connections_exhausted", 503)
}

// Running in a worker.
extension ErrorCode {
  /// The worker process ended before it had answered.
  public static let workerDied = ErrorCode("worker_died", 502)
  /// The worker answered with bytes that are not an HTTP response.
  public static let workerBadResponse = ErrorCode("worker_bad_response", 502)
  /// The worker sent no first byte within `first-byte-timeout`.
  public static let firstByteTimeout = ErrorCode("first_byte_timeout", 504)
  /// The worker fell silent within a response for longer than `idle-timeout`.
  public static let idleTimeout = ErrorCode("idle_timeout", 504)
  /// The whole request took longer than `request-timeout`.
  public static let requestDeadline = ErrorCode("request_deadline", 504)
  /// The answer does not fit one event of a request that asked for progress.
  public static let answerTooLarge = ErrorCode("answer_too_large", 502)
  /// The function raised an exception; the message carries its type and text.
  public static let functionException = ErrorCode("function_exception", 500)
  /// The function could not read the request's input.
  public static let functionInput = ErrorCode("function_input", 400)
}

// Bundles and deploys.
extension ErrorCode {
  /// A function's name has characters or a length that are not allowed.
  public static let nameInvalid = ErrorCode("name_invalid", 400)
  /// A digest is not 64 hexadecimal digits.
  public static let digestInvalid = ErrorCode("digest_invalid", 400)
  /// `function.yaml` is missing from the bundle.
  public static let specMissing = ErrorCode("spec_missing", 422)
  /// `function.yaml` is not valid; the message names line and column.
  public static let specInvalid = ErrorCode("spec_invalid", 422)
  /// A file that `function.yaml` names is not in the bundle.
  public static let specFileMissing = ErrorCode("spec_file_missing", 422)
  /// The archive is cut short.
  public static let archiveTruncated = ErrorCode("archive_truncated", 422)
  /// The archive is not valid Zstandard or tar data.
  public static let archiveCorrupt = ErrorCode("archive_corrupt", 422)
  /// An archive entry has an absolute path.
  public static let archiveAbsolutePath = ErrorCode("archive_absolute_path", 422)
  /// An archive entry's path leaves the bundle's folder.
  public static let archiveParentPath = ErrorCode("archive_parent_path", 422)
  /// An archive entry is a symbolic or hard link.
  public static let archiveLink = ErrorCode("archive_link", 422)
  /// An archive entry is a device, a FIFO or another special file.
  public static let archiveSpecialFile = ErrorCode("archive_special_file", 422)
  /// Two archive entries have the same path, or paths that differ by case or Unicode form only.
  public static let archiveDuplicatePath = ErrorCode("archive_duplicate_path", 422)
  /// An archive entry's path has a NUL, a control character, a back-slash, or is not UTF-8.
  public static let archivePathInvalid = ErrorCode("archive_path_invalid", 422)
  /// The archive has more files than `bundle-files-max`.
  public static let archiveTooManyFiles = ErrorCode("archive_too_many_files", 422)
  /// The archive unpacks to more bytes than `bundle-bytes-max`.
  public static let archiveTooLarge = ErrorCode("archive_too_large", 413)
  /// The archive unpacks to more than `bundle-ratio-max` times its packed size.
  public static let archiveRatio = ErrorCode("archive_ratio", 422)
  /// An entry's content or size differs from what the archive's manifest promised.
  public static let archiveDigestMismatch = ErrorCode("archive_digest_mismatch", 422)
  /// The archive's manifest is not valid, or names files that the archive lacks.
  public static let archiveManifestInvalid = ErrorCode("archive_manifest_invalid", 422)
  /// The bundle refers to blobs that the gateway does not hold.
  public static let blobMissing = ErrorCode("blob_missing", 409)
  /// The content of a blob is not that of its digest.
  public static let blobDigestMismatch = ErrorCode("blob_digest_mismatch", 422)
  /// No bundle with this digest was uploaded.
  public static let bundleNotFound = ErrorCode("bundle_not_found", 404)
  /// A weight file could not be fetched from its source.
  public static let sourceFailed = ErrorCode("source_failed", 502)
  /// The Python environment could not be built; the message carries the installer's last lines.
  public static let environmentFailed = ErrorCode("environment_failed", 422)
  /// A model of this name is there already, or is part of the bundle and cannot be removed.
  public static let modelConflict = ErrorCode("model_conflict", 409)
  /// A knob's name or value is not valid.
  public static let policyInvalid = ErrorCode("policy_invalid", 422)
  /// A file given to `hearth replay` is not a trace.
  public static let traceInvalid = ErrorCode("trace_invalid", 422)
  /// The bundle asks for something that this gateway's machine does not have.
  public static let resourceUnavailable = ErrorCode("resource_unavailable", 422)
}

// The gateway and its admin plane.
extension ErrorCode {
  /// The admin call has no valid bearer token.
  public static let unauthorized = ErrorCode("unauthorized", 401)
  /// The admin call's body or parameters are not valid.
  public static let adminRequestInvalid = ErrorCode("admin_request_invalid", 400)
  /// No admin route has this path and method.
  public static let adminRouteNotFound = ErrorCode("admin_route_not_found", 404)
  /// `hearth.yaml`, an option or an environment variable is not valid.
  public static let configurationInvalid = ErrorCode("configuration_invalid", 400)
  /// The gateway could not be reached.
  public static let gatewayUnreachable = ErrorCode("gateway_unreachable", 503)
  /// A file or folder that the command names cannot be read or written.
  public static let fileUnusable = ErrorCode("file_unusable", 400)
  /// Something failed inside Hearth; the gateway's log has the cause.
  public static let internalError = ErrorCode("internal_error", 500)
}

extension ErrorCode {
  /// Every code, in the order of `docs/errors.md`.
  public static let all: [ErrorCode] = [
    requestMalformed, requestTimeout, bodyTooLarge, headTooLarge, routeNotFound, functionNotFound, modelMissing,
    modelNotFound, notImplemented, queueFull, coldStartTimeout, loadFailed, memoryExhausted, functionGone, shuttingDown,
    clientBusy, connectionsExhausted,
    workerDied, workerBadResponse, firstByteTimeout, idleTimeout, requestDeadline, answerTooLarge,
    functionException, functionInput,
    nameInvalid, digestInvalid, specMissing, specInvalid, specFileMissing, archiveTruncated, archiveCorrupt,
    archiveAbsolutePath, archiveParentPath, archiveLink, archiveSpecialFile, archiveDuplicatePath, archivePathInvalid,
    archiveTooManyFiles, archiveTooLarge, archiveRatio, archiveDigestMismatch, archiveManifestInvalid, blobMissing,
    blobDigestMismatch, bundleNotFound, sourceFailed, environmentFailed, modelConflict, policyInvalid, traceInvalid,
    resourceUnavailable,
    unauthorized, adminRequestInvalid, adminRouteNotFound, configurationInvalid, gatewayUnreachable, fileUnusable,
    internalError,
  ]
}
