import HearthHTTP1
import NIOCore
import Testing

@Suite("What the gateway says of an answer")
struct ResponseStampTests {
  @Test("Times are milliseconds with three decimals")
  func written() {
    var stamp = ResponseStamp(requestID: "r-1", version: "0123456789ab")
    stamp.start = "zygote"
    stamp.queue = -5
    stamp.spawn = 999
    stamp.load = 42_738_400
    stamp.execution = 12_345_678_901_234
    var buffer = ByteBuffer()
    stamp.write(into: &buffer)
    #expect(
      String(buffer: buffer)
        == "hearth-request-id: r-1\r\nhearth-version: 0123456789ab\r\nhearth-start: zygote\r\n"
        + "server-timing: queue;dur=0.000, fetch;dur=0, spawn;dur=0.000, load;dur=42.738, exec;dur=12345678.901\r\n")
  }
}
