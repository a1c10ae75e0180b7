import CZstd
import HearthCore

/// Streaming decompression of one or more Zstandard frames (RFC 8878).
final class ZstandardDecoder {
  /// 2^27 bytes: what `zstd --ultra -22` needs; a larger window is refused as an attack on memory.
  private static let windowLogMax: Int32 = 27

  private let context: OpaquePointer
  private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: ZSTD_DStreamOutSize(), alignment: 16)
  /// Whether the last frame seen is complete.
  private(set) var isAtFrameEnd = true

  init() {
    context = ZSTD_createDCtx()
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZstandardDecoder.windowLogMax)
  }

  deinit {
    ZSTD_freeDCtx(context)
    output.deallocate()
  }

  /// Decompresses what has arrived and hands on what comes out. Throws `archive_corrupt`.
  func decode(_ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
    var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
    var isOutputFull = false
    while input.pos < input.size || isOutputFull {
      var out = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
      let result = ZSTD_decompressStream(context, &out, &input)
      guard ZSTD_isError(result) == 0 else {
        throw HearthError(
          .archiveCorrupt, "The archive is not valid Zstandard data.",
          hint: "Pack it with 'hearth bundle pack', or with tar and zstd.",
          cause: String(cString: ZSTD_getErrorName(result)))
      }
      isAtFrameEnd = result == 0
      // A frame that has ended has nothing more to give, also when it has just filled the output.
      isOutputFull = out.pos == out.size && result != 0
      if out.pos > 0 { try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(output)[..<out.pos])) }
    }
  }
}

/// Streaming compression to one Zstandard frame.
final class ZstandardEncoder {
  private let context: OpaquePointer
  private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: ZSTD_CStreamOutSize(), alignment: 16)

  /// - Parameter level: 1 (fastest) to 19; 3 is zstd's own default.
  init(level: Int32 = 3) {
    context = ZSTD_createCCtx()
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
  }

  deinit {
    ZSTD_freeCCtx(context)
    output.deallocate()
  }

  func encode(_ bytes: UnsafeRawBufferPointer, isLast: Bool, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
    var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
    while true {
      var out = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
      let rest = ZSTD_compressStream2(context, &out, &input, isLast ? ZSTD_e_end : ZSTD_e_continue)
      guard ZSTD_isError(rest) == 0 else {
        throw HearthError(
          .internalError, "The archive could not be compressed.", cause: String(cString: ZSTD_getErrorName(rest)))
      }
      if out.pos > 0 { try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(output)[..<out.pos])) }
      if isLast ? rest == 0 : input.pos == input.size { return }
    }
  }
}
