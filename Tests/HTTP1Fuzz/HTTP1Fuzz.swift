import HTTP1Differential

private typealias TestOneInput = @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt

/// libFuzzer's driver (FuzzerInterface.h), which calls the function with one input after another.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>, _ test: TestOneInput
) -> CInt

/// The entry that SwiftPM gives an executable instead of `main`.
@_cdecl("HTTP1Fuzz_main")
public func main(
  _ argumentCount: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> CInt {
  var argumentCount = argumentCount
  var arguments = arguments
  return runDriver(&argumentCount, &arguments) { start, count in
    if let start, count > 1 { check(UnsafeBufferPointer(start: start, count: count)) }
    return 0
  }
}

/// The first byte picks the side and the size of the pieces, the rest is the stream.
private func check(_ input: UnsafeBufferPointer<UInt8>) {
  let side: HTTP1Side = input[0] & 1 == 0 ? .request : .response
  let bytes = Array(input.dropFirst())
  if let problem = HTTP1Differential.problem(bytes, side, step: 1 + Int(input[0] >> 1)) {
    fatalError("\(problem)\n\(side) \(String(decoding: bytes, as: UTF8.self).debugDescription)")
  }
}
