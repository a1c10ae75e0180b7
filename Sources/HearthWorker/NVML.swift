import Foundation
import HearthCore

/// The NVIDIA Management Library, loaded when the gateway starts; where it or a driver is absent there is none.
///
/// Functions and structures as in nvml.h (NVIDIA, "NVML API Reference Guide").
final class NVML: Sendable {
  private typealias Handle = OpaquePointer
  private typealias Initialise = @convention(c) () -> Int32
  private typealias Count = @convention(c) (UnsafeMutablePointer<UInt32>) -> Int32
  private typealias HandleByIndex = @convention(c) (UInt32, UnsafeMutablePointer<Handle?>) -> Int32
  private typealias Text = @convention(c) (Handle, UnsafeMutablePointer<CChar>, UInt32) -> Int32
  /// `nvmlMemory_t` is three numbers: of all bytes, the free ones and the used ones.
  private typealias Processes =
    @convention(c) (
      Handle, UnsafeMutablePointer<UInt32>, UnsafeMutableRawPointer
    ) -> Int32
  private typealias MemoryInfo = @convention(c) (Handle, UnsafeMutablePointer<UInt64>) -> Int32

  /// `nvmlProcessInfo_t`, its version 2.
  private struct Process {
    var pid: UInt32 = 0
    var usedBytes: UInt64 = 0
    var gpuInstance: UInt32 = 0
    var computeInstance: UInt32 = 0
  }

  /// 1,024: more processes of one GPU than anyone has seen.
  private static let processesMax: UInt32 = 1_024
  /// 96: NVML_DEVICE_UUID_V2_BUFFER_SIZE and NVML_DEVICE_NAME_V2_BUFFER_SIZE.
  private static let textMax: UInt32 = 96
  private static let success: Int32 = 0

  let devices: [Device]
  // NVML's functions may be called from any thread.
  private nonisolated(unsafe) let handles: [String: Handle]
  private let memoryInfo: MemoryInfo
  private let processes: Processes?

  /// Nil where the library, the driver or a function of it is missing.
  init?() {
    guard let library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL) else { return nil }
    func function<Function>(_ name: String, as type: Function.Type) -> Function? {
      dlsym(library, name).map { unsafeBitCast($0, to: type) }
    }
    guard let initialise = function("nvmlInit_v2", as: Initialise.self),
      let count = function("nvmlDeviceGetCount_v2", as: Count.self),
      let handleByIndex = function("nvmlDeviceGetHandleByIndex_v2", as: HandleByIndex.self),
      let uuid = function("nvmlDeviceGetUUID", as: Text.self),
      let name = function("nvmlDeviceGetName", as: Text.self),
      let memoryInfo = function("nvmlDeviceGetMemoryInfo", as: MemoryInfo.self)
    else { return nil }
    var found: UInt32 = 0
    guard initialise() == NVML.success, count(&found) == NVML.success else { return nil }
    var devices: [Device] = []
    var handles: [String: Handle] = [:]
    for index in 0..<found {
      var handle: Handle?
      guard handleByIndex(index, &handle) == NVML.success, let handle, let uuid = NVML.text(uuid, handle),
        let total = NVML.memory(memoryInfo, handle)?.total
      else { continue }
      let device = Device(
        name: "cuda:\(index)", kind: .cuda(uuid: uuid), memory: total,
        model: NVML.text(name, handle) ?? "GPU")
      devices.append(device)
      handles[device.name] = handle
    }
    self.devices = devices
    self.handles = handles
    self.memoryInfo = memoryInfo
    processes = function("nvmlDeviceGetComputeRunningProcesses_v3", as: Processes.self)
  }

  /// What is in use of a device's memory, whoever uses it. Nil when the driver does not say.
  func used(of device: Device) -> ByteSize? {
    handles[device.name].flatMap { NVML.memory(memoryInfo, $0)?.used }
  }

  /// What a process has of a device's memory. Nil when the driver does not say, as where it knows processes by other
  /// numbers than this machine, or container.
  func used(of device: Device, by pid: Int32) -> ByteSize? {
    guard let handle = handles[device.name], let processes else { return nil }
    var count = NVML.processesMax
    var found = [Process](repeating: Process(), count: Int(count))
    guard processes(handle, &count, &found) == NVML.success,
      let process = found.prefix(Int(count)).first(where: { $0.pid == UInt32(bitPattern: pid) }),
      process.usedBytes <= UInt64(Int64.max)
    else { return nil }
    return ByteSize(bytes: Int64(process.usedBytes))
  }

  private static func memory(_ function: MemoryInfo, _ handle: Handle) -> (total: ByteSize, used: ByteSize)? {
    var numbers: [UInt64] = [0, 0, 0]
    guard function(handle, &numbers) == success else { return nil }
    return (ByteSize(bytes: Int64(clamping: numbers[0])), ByteSize(bytes: Int64(clamping: numbers[2])))
  }

  private static func text(_ function: Text, _ handle: Handle) -> String? {
    var buffer = [CChar](repeating: 0, count: Int(textMax))
    guard function(handle, &buffer, textMax) == success else { return nil }
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
