import HearthCore
import HearthHTTP1
import Hummingbird
import Logging

/// Lets nothing through without the bearer token.
struct TokenMiddleware<Context: RequestContext>: RouterMiddleware {
  let isAuthorised: @Sendable (String) -> Bool

  func handle(
    _ request: Request, context: Context, next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    guard isAuthorised(request.headers[.authorization] ?? "") else {
      throw HearthError(
        .unauthorized, "The admin token is missing or wrong.",
        hint: "It is in admin.token in the gateway's data folder; send it as 'Authorization: Bearer TOKEN'.")
    }
    return try await next(request, context)
  }
}

/// Turns every error into the JSON envelope.
struct ErrorMiddleware<Context: RequestContext>: RouterMiddleware {
  let logger: Logger

  func handle(
    _ request: Request, context: Context, next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    do {
      return try await next(request, context)
    } catch {
      let error = AdminFailure.error(for: error, request)
      if error.code == .internalError { logger.error("admin call failed", metadata: ["error": "\(error)"]) }
      return AdminFailure.response(error)
    }
  }
}

enum AdminFailure {
  static func response(_ error: HearthError) -> Response {
    var headers: HTTPFields = [.contentType: "application/json"]
    if error.code.status == 401 { headers[.wwwAuthenticate] = "Bearer" }
    // What is left of a body that was refused midway must not be taken for the next request.
    headers[.connection] = "close"
    let body = ErrorEnvelope.json(error, request: "", source: .gateway)
    return Response(
      status: .init(code: error.code.status), headers: headers, body: .init(byteBuffer: ByteBuffer(string: body)))
  }

  static func error(for error: any Error, _ request: Request? = nil) -> HearthError {
    if let error = error as? HearthError { return error }
    guard let response = error as? any HTTPResponseError else {
      return HearthError(
        .internalError, "Something failed inside the gateway.", hint: "Its log has the cause.",
        cause: String(describing: error))
    }
    switch response.status {
    case .notFound, .methodNotAllowed:
      let call = request.map { "\($0.method.rawValue) \($0.uri.path.printable(limit: 120))" } ?? "this call"
      return HearthError(
        .adminRouteNotFound, "The admin API has no \(call).", hint: "docs/admin-api.md lists the calls.")
    default:
      return HearthError(.adminRequestInvalid, "The call is not valid.", cause: String(describing: error))
    }
  }
}
