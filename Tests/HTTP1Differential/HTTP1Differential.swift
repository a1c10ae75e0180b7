/// Compares what two parsers make of the same bytes.
public enum HTTP1Differential {
  /// What is wrong with how Hearth reads the bytes; nil when all is well.
  ///
  /// Hearth may refuse more than llhttp does. What it accepts, llhttp's strict mode accepts too, with the same start,
  /// fields and body; and the pieces in which bytes arrive change nothing.
  public static func problem(_ bytes: [UInt8], _ side: HTTP1Side, step: Int) -> String? {
    let ours = HTTP1Reading(hearth: bytes, side, step: step)
    let whole = HTTP1Reading(hearth: bytes, side, step: max(bytes.count, 1))
    guard ours.messages == whole.messages, ours.isRefused == whole.isRefused else {
      return "pieces of \(step) bytes read \(ours), all at once \(whole)"
    }
    let theirs = HTTP1Reading(llhttp: bytes, side)
    for (index, message) in ours.messages.enumerated() {
      guard index < theirs.messages.count else {
        // After an upgrade, which Hearth ignores as it may, llhttp reads no further.
        if let last = theirs.messages.last, isUpgrade(last) { return nil }
        return "message \(index) is accepted, but not by llhttp: \(message)"
      }
      guard isSame(message, theirs.messages[index]) else {
        return "message \(index) is \(message), to llhttp \(theirs.messages[index])"
      }
    }
    return nil
  }

  private static func isUpgrade(_ message: HTTP1Message) -> Bool {
    message.fields.contains { $0.hasPrefix("upgrade:") }
  }

  private static func isSame(_ ours: HTTP1Message, _ theirs: HTTP1Message) -> Bool {
    ours.fields == theirs.fields && ours.body == theirs.body && isSameStart(ours.start, theirs.start)
  }

  /// A target in absolute form is reduced to its path by Hearth and kept whole by llhttp.
  private static func isSameStart(_ ours: String, _ theirs: String) -> Bool {
    if ours == theirs { return true }
    let (our, their) = (ours.split(separator: " "), theirs.split(separator: " "))
    guard our.count == 2, their.count == 2, our[0] == their[0] else { return false }
    let isAbsolute = their[1].prefix(7).lowercased() == "http://"
    return isAbsolute && (their[1].hasSuffix(our[1]) || our[1] == "/" || their[1].hasSuffix(our[1].dropFirst()))
  }
}
