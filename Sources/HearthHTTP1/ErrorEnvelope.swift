import HearthCore

/// The JSON that every error travels in: `{"error": {code, message, hint, request, source}}`.
public enum ErrorEnvelope {
  public static func json(_ error: HearthError, request: String, source: ErrorSource) -> String {
    let hint = error.hint.map(JSONText.quoted) ?? "null"
    return "{\"error\":{\"code\":\(JSONText.quoted(error.code.name)),\"message\":\(JSONText.quoted(error.message)),"
      + "\"hint\":\(hint),\"request\":\(JSONText.quoted(request)),\"source\":\(JSONText.quoted(source.rawValue))}}\n"
  }
}
