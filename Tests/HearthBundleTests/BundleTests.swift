import Foundation
import HearthBundle
import HearthCore
import HearthTestSupport
import Testing

@Suite("Bundles")
struct BundleTests {
  private func bundleFolder() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("function.yaml", "name: a\nhandler: handler.py:Model\n")
    try folder.write("handler.py", "class Model: pass\n")
    try folder.write("weights/large.bin", String(repeating: "weights ", count: 200_000))
    try folder.write("\(String(repeating: "d", count: 60))/\(String(repeating: "f", count: 60)).txt", "long path")
    return folder
  }

  private func upload(_ archive: String, to catalog: BundleCatalog) throws -> Digest {
    let upload = try catalog.upload()
    try [UInt8](Data(contentsOf: URL(fileURLWithPath: archive))).withUnsafeBytes(upload.write)
    return try upload.finish()
  }

  @Test("The digest depends on paths, modes and contents alone")
  func digest() throws {
    let one = try bundleFolder()
    let other = try bundleFolder()
    let digest = try BundleManifest.ofFolder(one.path).digest
    #expect(try BundleManifest.ofFolder(other.path).digest == digest)
    chmod("\(other.path)/handler.py", 0o755)
    #expect(try BundleManifest.ofFolder(other.path).digest != digest)
    chmod("\(other.path)/handler.py", 0o600)
    #expect(try BundleManifest.ofFolder(other.path).digest == digest)
    try other.write("handler.py", "class Model: x = 1\n")
    #expect(try BundleManifest.ofFolder(other.path).digest != digest)
  }

  @Test("What is packed comes out the same, read-only")
  func roundTrip() throws {
    let source = try bundleFolder()
    let store = try TemporaryFolder()
    let catalog = try BundleCatalog(folder: store.path, limits: BundleLimits())
    let manifest = try BundleManifest.ofFolder(source.path)
    let archive = "\(source.path).tar.zst"
    defer { unlink(archive) }
    try BundleArchive.pack(source.path, manifest: manifest, to: archive, withoutBlobs: false)
    let digest = try upload(archive, to: catalog)
    #expect(digest == manifest.digest)
    let tree = try catalog.folder(of: digest)
    #expect(try BundleManifest.ofFolder(tree) == manifest)
    var status = stat()
    stat("\(tree)/handler.py", &status)
    #expect(status.st_mode & 0o777 == 0o444)
    #expect(try upload(archive, to: catalog) == digest, "the same again is fine")
  }

  @Test("Packing twice gives the same bytes")
  func reproducible() throws {
    let source = try bundleFolder()
    let manifest = try BundleManifest.ofFolder(source.path)
    let archives = ["\(source.path).1", "\(source.path).2"]
    defer { for archive in archives { unlink(archive) } }
    for archive in archives {
      try BundleArchive.pack(source.path, manifest: manifest, to: archive, withoutBlobs: false)
    }
    #expect(FileManager.default.contentsEqual(atPath: archives[0], andPath: archives[1]))
  }

  @Test("A change of one line sends kilobytes beside the same weights")
  func sharesBlobs() throws {
    let source = try bundleFolder()
    let store = try TemporaryFolder()
    let catalog = try BundleCatalog(folder: store.path, limits: BundleLimits())
    let archive = "\(source.path).tar.zst"
    defer { unlink(archive) }
    try BundleArchive.pack(
      source.path, manifest: BundleManifest.ofFolder(source.path), to: archive, withoutBlobs: false)
    _ = try upload(archive, to: catalog)
    try source.write("handler.py", "class Model: x = 2\n")
    let changed = try BundleManifest.ofFolder(source.path)
    try BundleArchive.pack(source.path, manifest: changed, to: archive, withoutBlobs: true)
    let size = try FileManager.default.attributesOfItem(atPath: archive)[.size] as? Int ?? .max
    #expect(size < 4096)
    let digest = try upload(archive, to: catalog)
    #expect(digest == changed.digest)
    #expect(try BundleManifest.ofFolder(catalog.folder(of: digest)) == changed)
  }

  @Test("A blob counts only with the right digest")
  func blobs() throws {
    let store = try TemporaryFolder()
    let catalog = try BundleCatalog(folder: store.path, limits: BundleLimits())
    let digest = SHA256.digest(of: "content")
    let wrong = try catalog.blobs.upload(digest)
    try Array("another".utf8).withUnsafeBytes(wrong.write)
    #expect(throws: HearthError.self) { try wrong.finish() }
    #expect(!catalog.blobs.contains(digest))
    let right = try catalog.blobs.upload(digest)
    try Array("content".utf8).withUnsafeBytes(right.write)
    try right.finish()
    #expect(catalog.blobs.contains(digest))
  }

  @Test("A link in a folder is refused when it is packed")
  func links() throws {
    let source = try bundleFolder()
    symlink("/etc/passwd", "\(source.path)/link")
    let error = #expect(throws: HearthError.self) { try BundleManifest.ofFolder(source.path) }
    #expect(error?.code == .archiveLink)
  }
}
