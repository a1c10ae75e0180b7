import HearthCore

/// What a bundle may cost the gateway. An archive past any of these is refused while it is read.
public struct BundleLimits: Sendable {
  /// 20,000 files: a bundle with a vendored Python package or two; each costs an inode.
  public var filesMax = 20_000
  /// 64 GiB unpacked: a large language model in half precision.
  public var bytesMax = ByteSize.gib(64)
  /// 200 times: text packs to a tenth, weights hardly at all; only a bomb packs to a thousandth.
  public var ratioMax = 200
  /// 64 MiB: below this much output the ratio is not looked at, since it cannot hurt.
  public var ratioFreeBytes = ByteSize.mib(64)

  public init() {}
}
