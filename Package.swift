// swift-tools-version:6.2
import PackageDescription

/// Settings every Swift target shares: boxes of protocol types are marked `any`.
let strict: [SwiftSetting] = [.enableUpcomingFeature("ExistentialAny")]

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioFoundation: Target.Dependency = .product(name: "NIOFoundationCompat", package: "swift-nio")
let nioLocks: Target.Dependency = .product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let nioTLS: Target.Dependency = .product(name: "NIOTLS", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let nioHTTP2: Target.Dependency = .product(name: "NIOHTTP2", package: "swift-nio-http2")
let nioHPACK: Target.Dependency = .product(name: "NIOHPACK", package: "swift-nio-http2")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")
let grdb: Target.Dependency = .product(name: "GRDB", package: "GRDB.swift")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let package = Package(
  name: "hearth",
  platforms: [.macOS(.v15)],
  products: [.executable(name: "hearth", targets: ["HearthCLI"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    // C: what Swift cannot call directly, and the system libraries.
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .target(name: "CCurlShim", dependencies: ["CCurl"]),
    .target(name: "CPlatform"),

    // Vocabulary.
    module("HearthCore", []),
    module("HearthYAML", ["HearthCore", yams]),
    module("HearthHTTP1", ["HearthCore", nioCore, nioLocks]),
    module("HearthWorkerProtocol", ["HearthCore", nioCore]),

    // Engines.
    module("HearthConfiguration", ["HearthCore", "HearthYAML"]),
    module("HearthTransfer", ["HearthCore", "CCurl", "CCurlShim"]),
    module("HearthBundle", ["HearthCore", "HearthYAML", "HearthTransfer", "CPlatform", "CZstd", "CCrypto"]),
    module("HearthStore", ["HearthCore", grdb]),
    module("HearthScheduler", ["HearthCore", deque]),
    module("HearthReplay", ["HearthCore", "HearthScheduler"]),
    module(
      "HearthWorker",
      [
        "HearthCore", "HearthHTTP1", "HearthWorkerProtocol", "CPlatform", nioCore, nioPosix, nioLocks, logging,
      ]),
    module(
      "HearthDispatch",
      [
        "HearthCore", "HearthBundle", "HearthHTTP1", "HearthScheduler", "HearthWorker", nioCore, nioPosix, nioLocks,
        logging,
      ]),
    module(
      "HearthHTTP",
      [
        "HearthCore", "HearthHTTP1", nioCore, nioPosix, nioLocks, nioTLS, nioSSL, nioHTTP2, nioHPACK, logging,
      ]),
    module(
      "HearthAdmin",
      [
        "HearthCore", "HearthBundle", "HearthHTTP1", "HearthStore", "HearthDispatch", "HearthScheduler", hummingbird,
        lifecycle, nioCore, nioFoundation, nioPosix, logging,
      ]),

    // Shells.
    module(
      "HearthServer",
      [
        "HearthCore", "HearthConfiguration", "HearthBundle", "HearthStore", "HearthWorker", "HearthDispatch",
        "HearthHTTP", "HearthAdmin", nioCore, nioPosix, lifecycle, logging,
      ]),
    .executableTarget(
      name: "HearthCLI",
      dependencies: [
        "HearthCore", "HearthConfiguration", "HearthBundle", "HearthReplay", "HearthTransfer", "HearthAdmin",
        "HearthServer", argumentParser,
      ],
      swiftSettings: strict),

    // What `make bench-http` compares with.
    .executableTarget(
      name: "Forwarder", dependencies: [nioCore, nioPosix], path: "Benchmarks/forwarder", swiftSettings: strict),

    // Fakes and tests.
    module("HearthTestSupport", ["HearthCore", "HearthBundle"]),
    tests("HearthCoreTests", ["HearthCore", "HearthYAML", "HearthConfiguration"]),
    tests("HearthBundleTests", ["HearthCore", "HearthBundle", "HearthTestSupport", "CZstd"]),
    tests("HearthSchedulerTests", ["HearthCore", "HearthScheduler", "HearthTestSupport"]),
    .target(
      name: "HTTP1Differential", dependencies: ["HearthHTTP1", nioCore, nioHTTP1, nioEmbedded],
      path: "Tests/HTTP1Differential", swiftSettings: strict),
    .testTarget(
      name: "HearthHTTP1Tests", dependencies: ["HearthCore", "HearthHTTP1", "HTTP1Differential", nioCore],
      exclude: ["corpus.jsonl"], swiftSettings: strict),
    tests("HearthReplayTests", ["HearthCore", "HearthScheduler", "HearthReplay"]),
    tests("HearthWorkerProtocolTests", ["HearthCore", "HearthWorkerProtocol", nioCore]),
    tests("HearthTidyTests", ["HearthCore", "HearthConfiguration"]),
  ]
)

// `make fuzz` builds this one with libFuzzer's instrumentation; anywhere else it would have no main.
if Context.environment["HEARTH_FUZZ"] != nil {
  package.targets.append(
    .executableTarget(
      name: "HTTP1Fuzz", dependencies: ["HTTP1Differential"], path: "Tests/HTTP1Fuzz", exclude: ["http1.dict"],
      swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])],
      linkerSettings: [.unsafeFlags(["-use-ld=lld"])]))
}
