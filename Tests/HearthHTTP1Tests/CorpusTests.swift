import Foundation
import HTTP1Differential
import Testing

/// One line of `corpus.jsonl`: a stream of bytes, written as text in which each character is a byte.
struct CorpusCase: Decodable, Sendable, CustomTestStringConvertible {
  enum Verdict: String, Decodable {
    /// Every byte belongs to a message that is accepted.
    case accepted
    /// No message of it is accepted.
    case refused
  }

  let side: String
  let verdict: Verdict
  let name: String
  let bytes: String

  var testDescription: String { "\(side), \(verdict.rawValue): \(name)" }
  var stream: [UInt8] { bytes.unicodeScalars.map { UInt8($0.value) } }

  static let all: [CorpusCase] = {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("corpus.jsonl")
    let lines = (try? String(contentsOf: file, encoding: .utf8))?.split(separator: "\n") ?? []
    return lines.compactMap { try? JSONDecoder().decode(CorpusCase.self, from: Data($0.utf8)) }
  }()
}

@Suite("The corpus of HTTP/1.1 messages")
struct CorpusTests {
  @Test("It is all there")
  func size() { #expect(CorpusCase.all.count >= 250) }

  @Test("Each case has its verdict, and llhttp accepts what Hearth accepts", arguments: CorpusCase.all)
  func verdict(_ example: CorpusCase) throws {
    let side = try #require(HTTP1Side(rawValue: example.side))
    let reading = HTTP1Reading(hearth: example.stream, side, step: 4096)
    switch example.verdict {
    case .accepted: #expect(!reading.isRefused && !reading.messages.isEmpty)
    case .refused: #expect(reading.isRefused && reading.messages.isEmpty)
    }
    for step in [1, 2, 3, 7, 4096] {
      #expect(HTTP1Differential.problem(example.stream, side, step: step) == nil)
    }
  }
}
