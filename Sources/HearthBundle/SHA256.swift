import CCrypto
import Foundation
import HearthCore

/// An incremental SHA-256 (FIPS 180-4) by libcrypto.
public final class SHA256 {
  private let context: OpaquePointer

  public init() {
    context = EVP_MD_CTX_new()
    precondition(EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1, "libcrypto must offer SHA-256")
  }

  deinit { EVP_MD_CTX_free(context) }

  public func update(_ bytes: UnsafeRawBufferPointer) {
    EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
  }

  /// The digest of everything given so far. Call once.
  public func finish() -> Digest {
    var bytes = [UInt8](repeating: 0, count: 32)
    EVP_DigestFinal_ex(context, &bytes, nil)
    let digits = Array("0123456789abcdef")
    let hex = String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    return try! Digest(hex)
  }

  public static func digest(of text: String) -> Digest {
    let hash = SHA256()
    var text = text
    text.withUTF8 { hash.update(UnsafeRawBufferPointer($0)) }
    return hash.finish()
  }

  /// The digest of a file's content, read in pieces.
  public static func digest(ofFile path: String) throws -> Digest {
    let hash = SHA256()
    try readFile(path) { hash.update($0) }
    return hash.finish()
  }
}

/// Reads a file in pieces of 1 MiB. Throws `file_unusable` when it cannot be read.
func readFile(_ path: String, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
  guard descriptor >= 0 else { throw unusable(path, "be read") }
  defer { close(descriptor) }
  let capacity = 1 << 20
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
  defer { buffer.deallocate() }
  while true {
    let count = read(descriptor, buffer.baseAddress!, capacity)
    guard count >= 0 else { throw unusable(path, "be read") }
    if count == 0 { return }
    try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
  }
}

func unusable(_ path: String, _ verb: String) -> HearthError {
  HearthError(.fileUnusable, "'\(path)' could not \(verb): \(String(cString: strerror(errno))).")
}
