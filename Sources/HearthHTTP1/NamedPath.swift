/// Paths in which a name follows a fixed beginning: `/functions/NAME`, `/models/NAME`. What stands below the name is
/// its own.
public enum NamedPath {
  /// The name, and path and query below it (`/` when there is nothing); nil when the target begins otherwise.
  public static func split(_ target: String, after prefix: String.UTF8View) -> (name: Substring, target: String)? {
    let bytes = target.utf8
    guard bytes.starts(with: prefix) else { return nil }
    let start = bytes.index(bytes.startIndex, offsetBy: prefix.count)
    let slash = UInt8(ascii: "/")
    let question = UInt8(ascii: "?")
    guard let end = bytes[start...].firstIndex(where: { $0 == slash || $0 == question }) else {
      return (target[start...], "/")
    }
    return (target[start..<end], bytes[end] == question ? "/\(target[end...])" : String(target[end...]))
  }
}
