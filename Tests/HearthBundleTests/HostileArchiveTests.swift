import CZstd
import Foundation
import HearthBundle
import HearthCore
import HearthTestSupport
import Testing

/// Packs bytes as one Zstandard frame.
private func compress(_ bytes: [UInt8]) -> [UInt8] {
  var packed = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
  let count = ZSTD_compress(&packed, packed.count, bytes, bytes.count, 3)
  return Array(packed[..<count])
}

private let spec = "name: a\nhandler: handler.py:Model\n"

/// One hostile archive: what is wrong with it, the code it must be refused with, and how it is made.
struct HostileArchive: Sendable, CustomTestStringConvertible {
  let name: String
  let code: ErrorCode
  let bytes: [UInt8]

  var testDescription: String { name }

  /// A tar with a good start, then what `build` adds.
  static func tar(_ name: String, _ code: ErrorCode, _ build: (inout TarBuilder) -> Void) -> HostileArchive {
    var tar = TarBuilder()
    tar.add("function.yaml", spec)
    tar.add("handler.py", "x = 1")
    build(&tar)
    tar.end()
    return HostileArchive(name: name, code: code, bytes: compress(tar.bytes))
  }

  private static func path(_ name: String, _ code: ErrorCode, _ path: [UInt8]) -> HostileArchive {
    tar(name, code) { $0.add(path, [0x61]) }
  }

  private static func path(_ name: String, _ code: ErrorCode, _ text: String) -> HostileArchive {
    path(name, code, Array(text.utf8))
  }

  private static func manifest(_ name: String, _ code: ErrorCode, _ json: String) -> HostileArchive {
    var tar = TarBuilder()
    tar.add(".hearth-manifest.json", json)
    tar.add("function.yaml", spec)
    tar.end()
    return HostileArchive(name: name, code: code, bytes: compress(tar.bytes))
  }

  static let paths: [HostileArchive] = [
    path("absolute path", .archiveAbsolutePath, "/etc/passwd"),
    path("absolute path by pax", .archiveAbsolutePath, "/x"),
    tar("absolute path in a pax header", .archiveAbsolutePath) {
      $0.addPax([("path", "/etc/passwd")])
      $0.add("x", "a")
    },
    path("parent path", .archiveParentPath, "../x"),
    path("parent path inside", .archiveParentPath, "a/../../x"),
    path("parent path at the end", .archiveParentPath, "a/.."),
    path("only parent", .archiveParentPath, ".."),
    tar("parent path in a pax header", .archiveParentPath) {
      $0.addPax([("path", "a/../../x")])
      $0.add("x", "a")
    },
    tar("parent path by prefix", .archiveParentPath) {
      $0.add(Array("x".utf8), [0x61], edit: { $0.replaceSubrange(345..<347, with: Array("..".utf8)) })
    },
    path("back-slash", .archivePathInvalid, "a\\..\\x"),
    path("control character", .archivePathInvalid, "a\u{1}b"),
    path("line feed", .archivePathInvalid, "a\nb"),
    path("escape sequence", .archivePathInvalid, "a\u{1B}[2Jb"),
    path("not UTF-8", .archivePathInvalid, [0x61, 0xFF, 0xFE]),
    path("overlong UTF-8 slash", .archivePathInvalid, [0x2E, 0x2E, 0xC0, 0xAF, 0x78]),
    path("NUL inside", .archivePathInvalid, [0x61, 0x00, 0x62]),
    tar("NUL in a pax path", .archivePathInvalid) {
      $0.addPax([("path", "a\u{0}b")])
      $0.add("x", "a")
    },
    path("empty path", .archivePathInvalid, ""),
    path("empty part", .archivePathInvalid, "a//b"),
    path("dot part", .archivePathInvalid, "a/./b"),
    path("trailing slash on a file", .archivePathInvalid, "a/"),
    tar("long part", .archivePathInvalid) {
      $0.addPax([("path", String(repeating: "a", count: 300))])
      $0.add("x", "a")
    },
    tar("long path", .archivePathInvalid) {
      $0.addPax([("path", Array(repeating: String(repeating: "a", count: 200), count: 8).joined(separator: "/"))])
      $0.add("x", "a")
    },
  ]

  static let kinds: [HostileArchive] = [
    tar("symbolic link", .archiveLink) { $0.add("x", kind: "2", link: "/etc/passwd") },
    tar("relative symbolic link", .archiveLink) { $0.add("x", kind: "2", link: "handler.py") },
    tar("hard link", .archiveLink) { $0.add("x", kind: "1", link: "handler.py") },
    tar("link target in a pax header", .archiveLink) {
      $0.addPax([("linkpath", "/etc/passwd")])
      $0.add("x", kind: "2")
    },
    tar("character device", .archiveSpecialFile) { $0.add("x", kind: "3") },
    tar("block device", .archiveSpecialFile) { $0.add("x", kind: "4") },
    tar("FIFO", .archiveSpecialFile) { $0.add("x", kind: "6") },
    tar("contiguous file", .archiveSpecialFile) { $0.add("x", kind: "7") },
    tar("GNU long name", .archiveCorrupt) { $0.add("x", "a", kind: "L") },
    tar("GNU sparse file", .archiveCorrupt) { $0.add("x", "a", kind: "S") },
    tar("global pax header", .archiveCorrupt) { $0.add("x", "12 path=abc\n", kind: "g") },
    tar("unknown kind", .archiveCorrupt) { $0.add("x", "a", kind: "Z") },
  ]

  static let duplicates: [HostileArchive] = [
    tar("same path twice", .archiveDuplicatePath) { $0.add("handler.py", "y = 2") },
    tar("same path in another case", .archiveDuplicatePath) { $0.add("HANDLER.py", "y = 2") },
    tar("same path in another Unicode form", .archiveDuplicatePath) {
      $0.add("\u{E9}.txt", "a")
      $0.add("e\u{301}.txt", "b")
    },
    tar("a file where a folder is", .archiveDuplicatePath) {
      $0.add("a/b", "1")
      $0.add("a", "2")
    },
    tar("a folder where a file is", .archiveDuplicatePath) {
      $0.add("a", "1")
      $0.add("a/b", "2")
    },
  ]

  static let damage: [HostileArchive] = [
    HostileArchive(name: "nothing", code: .archiveTruncated, bytes: []),
    HostileArchive(name: "not zstd", code: .archiveCorrupt, bytes: Array("PK\u{3}\u{4} not this".utf8)),
    HostileArchive(
      name: "cut in the middle", code: .archiveTruncated,
      bytes: {
        let whole = HostileArchive.tar("", .archiveTruncated) { $0.add("x", String(repeating: "y", count: 10_000)) }
          .bytes
        return Array(whole.prefix(whole.count / 2))
      }()),
    HostileArchive(
      name: "no end marker", code: .archiveTruncated,
      bytes: {
        var tar = TarBuilder()
        tar.add("function.yaml", spec)
        return compress(tar.bytes)
      }()),
    HostileArchive(
      name: "cut inside a member", code: .archiveTruncated,
      bytes: {
        var tar = TarBuilder()
        tar.add(Array("function.yaml".utf8), Array(spec.utf8), size: 100_000)
        return compress(tar.bytes)
      }()),
    HostileArchive(
      name: "damaged frame", code: .archiveCorrupt,
      bytes: {
        var bytes = HostileArchive.tar("", .archiveCorrupt) { $0.add("x", String(repeating: "ab", count: 5_000)) }.bytes
        for index in 8..<16 { bytes[index] ^= 0xFF }
        return bytes
      }()),
    tar("wrong check sum", .archiveCorrupt) { $0.add(Array("x".utf8), patch: { $0[0] = 0x79 }) },
    tar("no ustar header", .archiveCorrupt) { $0.add(Array("x".utf8), magic: "old    ") },
    tar("size that is no number", .archiveCorrupt) {
      $0.add(Array("x".utf8), edit: { $0.replaceSubrange(124..<130, with: Array("zzzzzz".utf8)) })
    },
    tar("size beyond 64 bits", .archiveCorrupt) {
      $0.add(
        Array("x".utf8), edit: { $0.replaceSubrange(124..<136, with: [0x80] + [UInt8](repeating: 0xFF, count: 11)) })
    },
    tar("negative pax size", .archiveCorrupt) {
      $0.addPax([("size", "-5")])
      $0.add("x", "a")
    },
    tar("pax record with a wrong length", .archiveCorrupt) { $0.add("p", "99 path=x\n", kind: "x") },
    tar("something after the end", .archiveCorrupt) {
      $0.end()
      $0.append(Array(repeating: 0x41, count: 512))
    },
  ]

  static let limits: [HostileArchive] = [
    tar("more files than allowed", .archiveTooManyFiles) { tar in
      for index in 0..<60 { tar.add("f\(index)", "") }
    },
    tar("more folders than allowed", .archiveTooManyFiles) { tar in
      for index in 0..<60 { tar.add("d\(index)/", kind: "5") }
    },
    tar("more bytes than allowed", .archiveTooLarge) { $0.add(Array("x".utf8), size: 50 << 20) },
    tar("a bomb", .archiveRatio) { $0.add(Array("x".utf8), [UInt8](repeating: 0, count: 8 << 20)) },
  ]

  static let manifests: [HostileArchive] = [
    manifest("manifest that is no JSON", .archiveManifestInvalid, "{"),
    manifest(
      "manifest with a bad digest", .archiveManifestInvalid,
      #"{"files":[{"path":"x","executable":false,"size":1,"sha256":"zz"}]}"#),
    manifest(
      "manifest with a parent path", .archiveParentPath,
      #"{"files":[{"path":"../x","executable":false,"size":1,"sha256":"\#(String(repeating: "0", count: 64))"}]}"#),
    manifest(
      "manifest that promises another size", .archiveDigestMismatch,
      #"{"files":[{"path":"function.yaml","executable":false,"size":1,"sha256":"\#(String(repeating: "0", count: 64))"}]}"#
    ),
    manifest(
      "manifest that promises another digest", .archiveDigestMismatch,
      #"{"files":[{"path":"function.yaml","executable":false,"size":\#(spec.utf8.count),"sha256":"\#(String(repeating: "0", count: 64))"}]}"#
    ),
    manifest(
      "manifest that promises a file too many", .archiveManifestInvalid,
      #"{"files":[{"path":"function.yaml","executable":false,"size":\#(spec.utf8.count),"sha256":"\#(SHA256.digest(of: spec).hex)"},{"path":"x","executable":false,"size":1,"sha256":"\#(String(repeating: "0", count: 64))"}]}"#
    ),
    manifest("manifest that lacks a file", .archiveDigestMismatch, #"{"files":[]}"#),
    manifest(
      "manifest with a blob that nobody has", .blobMissing,
      #"{"files":[{"path":"function.yaml","executable":false,"size":\#(spec.utf8.count),"sha256":"\#(SHA256.digest(of: spec).hex)"},{"path":"w","executable":false,"size":2000000,"sha256":"\#(String(repeating: "0", count: 64))"}]}"#
    ),
    tar("manifest that does not come first", .archiveManifestInvalid) { $0.add(".hearth-manifest.json", "{}") },
  ]

  static let contents: [HostileArchive] = [
    HostileArchive(
      name: "no function.yaml", code: .specMissing,
      bytes: {
        var tar = TarBuilder()
        tar.add("handler.py", "x = 1")
        tar.end()
        return compress(tar.bytes)
      }()),
    HostileArchive(
      name: "function.yaml without its handler", code: .specFileMissing,
      bytes: {
        var tar = TarBuilder()
        tar.add("function.yaml", spec)
        tar.end()
        return compress(tar.bytes)
      }()),
  ]

  static let all = paths + kinds + duplicates + damage + limits + manifests + contents
}

@Suite("Hostile archives")
struct HostileArchiveTests {
  private func catalog(_ folder: TemporaryFolder) throws -> BundleCatalog {
    var limits = BundleLimits()
    limits.filesMax = 50
    limits.bytesMax = .mib(16)
    limits.ratioMax = 50
    limits.ratioFreeBytes = .mib(1)
    return try BundleCatalog(folder: folder.path, limits: limits)
  }

  private func upload(_ bytes: [UInt8], to catalog: BundleCatalog, step: Int) throws -> Digest {
    let upload = try catalog.upload()
    var rest = bytes[...]
    while !rest.isEmpty {
      try Array(rest.prefix(step)).withUnsafeBytes(upload.write)
      rest = rest.dropFirst(step)
    }
    return try upload.finish()
  }

  @Test("The corpus has at least forty archives")
  func corpus() { #expect(HostileArchive.all.count >= 40) }

  @Test("Each is refused with its own code and leaves nothing behind", arguments: HostileArchive.all)
  func refused(archive: HostileArchive) throws {
    let folder = try TemporaryFolder()
    let catalog = try catalog(folder)
    for step in [1 << 20, 7] where step > 7 || archive.bytes.count < 20_000 {
      let error = #expect(throws: HearthError.self) { try upload(archive.bytes, to: catalog, step: step) }
      #expect(error?.code == archive.code, "\(archive.name): \(error.map(String.init(describing:)) ?? "accepted")")
    }
    #expect(folder.files() == [], "\(archive.name)")
  }

  @Test("A good archive made by other tools is accepted, byte by byte as well", arguments: [1 << 20, 1])
  func accepted(step: Int) throws {
    let folder = try TemporaryFolder()
    var tar = TarBuilder()
    tar.add("./", kind: "5")
    tar.add("./function.yaml", spec)
    tar.add("./handler.py", "x = 1")
    tar.add("./data/", kind: "5")
    tar.addPax([("mtime", "1700000000.5"), ("path", "./data/\(String(repeating: "n", count: 150)).txt")])
    tar.add("short", "content")
    tar.end()
    let catalog = try catalog(folder)
    let digest = try upload(compress(tar.bytes), to: catalog, step: step)
    #expect(try catalog.spec(of: digest).name.rawValue == "a")
    let tree = try catalog.folder(of: digest)
    #expect(
      try String(contentsOfFile: "\(tree)/data/\(String(repeating: "n", count: 150)).txt", encoding: .utf8) == "content"
    )
  }

  @Test("A tar that fills the decoder's output exactly is whole", arguments: [1 << 20, 1000])
  func exactFit(step: Int) throws {
    let folder = try TemporaryFolder()
    var tar = TarBuilder()
    tar.add("function.yaml", spec)
    tar.add("handler.py", "x = 1")
    // Three headers, two blocks of content and the end make 3,584 bytes; the rest fills 128 KiB.
    tar.add(Array("fill".utf8), [UInt8](repeating: 7, count: 131_072 - 3_584))
    tar.end()
    #expect(tar.bytes.count == 131_072)
    _ = try upload(compress(tar.bytes), to: catalog(folder), step: step)
  }
}
