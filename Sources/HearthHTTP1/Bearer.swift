/// `Authorization: Bearer …` (RFC 6750), compared in a time that does not depend on where the texts differ.
public enum Bearer {
  public static func matches(_ field: String, key: String) -> Bool {
    guard field.utf8.count > 7, field.prefix(7).lowercased() == "bearer " else { return false }
    let given = Array(field.utf8.dropFirst(7))
    let wanted = Array(key.utf8)
    var difference = given.count ^ wanted.count
    for index in wanted.indices { difference |= Int(wanted[index] ^ (index < given.count ? given[index] : 0)) }
    return difference == 0
  }
}
