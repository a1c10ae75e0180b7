import Foundation
import HearthWorkerProtocol
import NIOCore
import Testing

@Suite("Control messages as both languages know them")
struct GoldenMessageTests {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../runtime/tests/golden").standardizedFileURL

  private static let names: [String] =
    (try? FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".json") }.sorted()) ?? []

  @Test("There is an example of each message")
  func complete() { #expect(GoldenMessageTests.names.count == 21) }

  @Test("Each example is read and written back to the same bytes", arguments: names)
  func roundTrip(name: String) throws {
    let bytes = [UInt8](try Data(contentsOf: GoldenMessageTests.folder.appendingPathComponent(name)))
    let line = ByteBuffer(bytes: bytes.dropLast())
    let written: [UInt8] =
      if name.hasPrefix("zygote-command") {
        try ControlCodec.encode(ControlCodec.decode(ZygoteCommand.self, from: line))
      } else if name.hasPrefix("zygote-report") {
        try ControlCodec.encode(ControlCodec.decode(ZygoteReport.self, from: line))
      } else if name.hasPrefix("worker-command") {
        try ControlCodec.encode(ControlCodec.decode(Addressed<WorkerCommand>.self, from: line))
      } else {
        try ControlCodec.encode(ControlCodec.decode(Addressed<WorkerReport>.self, from: line))
      }
    #expect(String(decoding: written, as: UTF8.self) == String(decoding: bytes, as: UTF8.self))
  }

  @Test(
    "What is no message is refused", arguments: ["", "{}", "[]", "{\"type\":\"unknown\"}", "{\"type\":\"started\"}"])
  func refused(text: String) {
    #expect(throws: (any Error).self) { try ControlCodec.decode(ZygoteReport.self, from: ByteBuffer(string: text)) }
  }
}
