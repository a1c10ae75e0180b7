import HearthConfiguration
import HearthCore
import Testing

@Suite("Names, units, knobs")
struct ValueTests {
  @Test(
    "Durations are read and written",
    arguments: [
      ("500ms", 500_000_000 as Int64, "500ms"), ("30s", 30_000_000_000, "30s"), ("1h30m", 5_400_000_000_000, "90m"),
      ("1.5h", 5_400_000_000_000, "90m"), ("0s", 0, "0s"), ("24h", 86_400_000_000_000, "1d"),
    ])
  func durations(text: String, nanoseconds: Int64, written: String) {
    let duration = Duration(hearth: text)
    #expect(duration?.nanoseconds == nanoseconds)
    #expect(duration?.text == written)
  }

  @Test(
    "What is no duration is refused", arguments: ["", "5", "s", "5 s", "-5s", "5x", "1e999s", "s5", "99999999999d"])
  func badDurations(text: String) { #expect(Duration(hearth: text) == nil) }

  @Test(
    "Sizes are read and written",
    arguments: [
      ("512MiB", 512 << 20 as Int64, "512MiB"), ("6GiB", 6 << 30, "6GiB"), ("1.5KiB", 1536, "1536B"),
      ("1000", 1000, "1000B"),
      ("5MB", 5_000_000, "5000000B"),
    ])
  func sizes(text: String, bytes: Int64, written: String) {
    #expect(ByteSize(text)?.bytes == bytes)
    #expect(ByteSize(text)?.description == written)
  }

  @Test("What is no size is refused", arguments: ["", "MiB", "5 MiB", "-1", "5mib", "1e99", "9999999TiB"])
  func badSizes(text: String) { #expect(ByteSize(text) == nil) }

  @Test("Function names are DNS labels")
  func names() {
    for name in ["a", "classify-image", "x1", String(repeating: "a", count: 63)] { #expect(FunctionName.isValid(name)) }
    for name in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", String(repeating: "a", count: 64)] {
      #expect(!FunctionName.isValid(name))
    }
  }

  @Test("A mistyped word finds its neighbour and nothing far away")
  func nearest() {
    #expect("keep-alve".nearest(in: ["keep-alive", "max-workers"]) == "keep-alive")
    #expect("banana".nearest(in: ["keep-alive", "max-workers"]) == nil)
  }

  @Test("Every knob reads back what it writes, and no two share a name")
  func knobs() throws {
    #expect(Set(PolicyKnob.all.map(\.name)).count == PolicyKnob.all.count)
    for knob in PolicyKnob.all {
      var policy = FunctionPolicy()
      let value = knob.read(policy)
      try knob.write(value, to: &policy)
      #expect(policy == FunctionPolicy(), "\(knob.name)")
      #expect(throws: HearthError.self, "\(knob.name)") { try knob.write("nonsense", to: &policy) }
    }
  }

  @Test("Error codes are unique and complete")
  func codes() { #expect(Set(ErrorCode.all.map(\.name)).count == ErrorCode.all.count) }

  @Test("Beyond loopback the data plane needs keys, and the admin plane stays")
  func exposure() throws {
    var configuration = GatewayConfiguration()
    try configuration.validate()
    try configuration.set("listen", "0.0.0.0:8080")
    #expect(throws: HearthError.self) { try configuration.validate() }
    configuration.keys = ["0123456789abcdef"]
    try configuration.validate()
    configuration.keys = ["short"]
    #expect(throws: HearthError.self) { try configuration.validate() }
    configuration.keys = []
    try configuration.set("listen", "127.0.0.1:0")
    try configuration.set("admin", "0.0.0.0:8081")
    #expect(throws: HearthError.self) { try configuration.validate() }
  }

  @Test("hearth.yaml is read strictly")
  func yaml() throws {
    var configuration = GatewayConfiguration()
    try configuration.read(
      yaml: "listen: 127.0.0.1:9000\nbody-max: 1GiB\nkeys: [0123456789abcdef]\n", file: "hearth.yaml")
    #expect(configuration.listen == HostPort(host: "127.0.0.1", port: 9000))
    #expect(configuration.bodyMax == .gib(1))
    #expect(throws: HearthError.self) { try configuration.read(yaml: "lisen: x\n", file: "hearth.yaml") }
    #expect(throws: HearthError.self) { try configuration.read(yaml: "listen: nowhere\n", file: "hearth.yaml") }
  }

  @Test("Times as logs write them")
  func timeText() {
    #expect(TimeText.rfc3339(unixNanoseconds: 0) == "1970-01-01T00:00:00.000Z")
    #expect(TimeText.rfc3339(unixNanoseconds: 1_709_164_799_999_999_999) == "2024-02-28T23:59:59.999Z")
    #expect(TimeText.rfc3339(unixNanoseconds: -1) == "1969-12-31T23:59:59.999Z")
    #expect(TimeText.seconds(nanoseconds: 61_000_001_999) == "61.000001")
    #expect(TimeText.seconds(nanoseconds: -5) == "0.000000")
  }
}
