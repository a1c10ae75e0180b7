/// Paths in which a name follows a fixed beginning: `/functions/NAME`, `/models/NAME`. What stands below the name is
/// its own.
public enum NamedPath {
  /// The name, and path and query below it (`/` when there is nothing); nil when the target begins otherwise.
  public static func split(_ target: String, after prefix: StaticString) -> (name: Substring, target: String)? {
    var target = target
    let place = target.withUTF8 { bytes -> (start: Int, end: Int)? in
      guard ASCII.begins(UnsafeRawBufferPointer(bytes), with: prefix) else { return nil }
      let start = prefix.utf8CodeUnitCount
      var end = start
      while end < bytes.count, bytes[end] != UInt8(ascii: "/"), bytes[end] != UInt8(ascii: "?") { end += 1 }
      return (start, end)
    }
    guard let place else { return nil }
    let bytes = target.utf8
    let end = bytes.index(bytes.startIndex, offsetBy: place.end)
    let name = target[bytes.index(bytes.startIndex, offsetBy: place.start)..<end]
    guard end < bytes.endIndex else { return (name, "/") }
    return (name, bytes[end] == UInt8(ascii: "?") ? "/\(target[end...])" : String(target[end...]))
  }
}
