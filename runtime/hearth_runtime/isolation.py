"""What keeps a worker apart: namespaces, a read-only file system, limits, no capabilities, a system call filter.

Each step is one function of `Limits`; `FEATURES` names them in the order they are applied. A step that the machine
does not allow is reported by `probe` once, and left out after that.
"""

import ctypes
import errno
import fcntl
import os
import platform
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_LAST = 40

#: 4,096 descriptors: data connections, mapped weights and an author's own files.
DESCRIPTORS_MAX = 4096


@dataclass
class Limits:
    """What one worker may see and use."""

    #: Private folder of this worker, with an empty `tmp` in it; a command's socket is made here.
    directory: str
    network: bool
    memory_bytes: int | None
    temporary_bytes: int
    #: Folders that must stay visible although others are replaced.
    visible: tuple[str, ...] = ()
    #: The gateway's data folder: empty for the worker but for what is `visible` in it; empty for none.
    hidden: str = ""
    #: Whether the worker creates its own socket in `directory`.
    writes_directory: bool = False


def set_parent_death_signal(signal_number: int) -> None:
    """Lets the kernel send this signal when the thread that forked this process ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def apply(limits: Limits, missing: dict[str, str]) -> None:
    """Applies every feature that the machine has. Raises OSError when one that was probed as present fails."""
    for name, step in FEATURES.items():
        if name not in missing:
            step(limits)


def probe(directory: str) -> dict[str, str]:
    """Tries each feature in a child; maps those that are missing to the reason."""
    missing: dict[str, str] = {}
    for name in FEATURES:
        reason = _try(name, directory, missing)
        if reason:
            missing[name] = reason
    return missing


def _try(name: str, directory: str, missing: dict[str, str]) -> str:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            limits = Limits(directory, network=False, memory_bytes=None, temporary_bytes=1 << 20)
            for feature, step in FEATURES.items():
                if feature not in missing and (feature == name or feature in _PREREQUISITES):
                    step(limits)
                if feature == name:
                    break
        except OSError as error:
            os.write(writing, os.strerror(error.errno or errno.EINVAL).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        reason = pipe.read()
    os.waitpid(pid, 0)
    return reason


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _user_namespace(_: Limits) -> None:
    """Without root, the other namespaces need one of these first; root has no use for it."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        return
    _check(_libc.unshare(CLONE_NEWUSER))
    for path, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{path}", "w") as file:
            file.write(text)


def _mount_namespace(_: Limits) -> None:
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWIPC))
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def _read_only(limits: Limits) -> None:
    """Makes every mount read-only, then lays private memory over the places meant for writing."""
    directory = limits.directory.encode()
    if limits.writes_directory:
        _check(_libc.mount(directory, directory, None, MS_BIND, None))
    _set_mount(b"/", MOUNT_ATTR_RDONLY, 0, AT_RECURSIVE)
    if limits.hidden:
        _hide(limits.hidden, (limits.directory, *limits.visible))
    if limits.writes_directory:
        _set_mount(directory, 0, MOUNT_ATTR_RDONLY, 0)
    size = f"size={limits.temporary_bytes},mode=1777".encode()
    temporary = directory + b"/tmp"
    _check(_libc.mount(b"tmpfs", temporary, b"tmpfs", MS_NOSUID | MS_NODEV, size))
    if os.path.isdir("/dev/shm"):
        _check(_libc.mount(temporary, b"/dev/shm", None, MS_BIND, None))
    if not any(path.startswith("/tmp/") for path in (limits.directory, *limits.visible)):
        _check(_libc.mount(temporary, b"/tmp", None, MS_BIND, None))


def _hide(folder: str, kept: tuple[str, ...]) -> None:
    """Covers a folder, and lays those of its parts that are kept over the cover again."""
    inside = [path for path in dict.fromkeys(kept) if path.startswith(folder + "/")]
    handles = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in inside]
    cover = folder.encode()
    _check(_libc.mount(b"tmpfs", cover, b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=0755"))
    for path, handle in zip(inside, handles, strict=True):
        os.makedirs(path, exist_ok=True)
        _check(_libc.mount(f"/proc/self/fd/{handle}".encode(), path.encode(), None, MS_BIND | MS_REC, None))
        os.close(handle)
    _set_mount(cover, MOUNT_ATTR_RDONLY, 0, 0)


def _set_mount(path: bytes, on: int, off: int, flags: int) -> None:
    attributes = struct.pack("QQQQ", on, off, 0, 0)
    mount_setattr = 442
    _check(_libc.syscall(mount_setattr, AT_FDCWD, path, flags, attributes, ctypes.c_size_t(len(attributes))))


def _network_namespace(limits: Limits) -> None:
    """No network but a loopback of its own."""
    if limits.network:
        return
    _check(_libc.unshare(CLONE_NEWNET))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket:
        set_flags, up_and_running = 0x8914, 0x41
        fcntl.ioctl(probe_socket, set_flags, struct.pack("16sH14x", b"lo", up_and_running))


def _limits(limits: Limits) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_MAX, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A file cannot outgrow the temporary folder either where that is not a file system of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.temporary_bytes, limits.temporary_bytes))
    if limits.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))


def _no_capabilities(_: Limits) -> None:
    for capability in range(CAPABILITY_LAST + 1):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 and ctypes.get_errno() == errno.EPERM:
            break
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0)))


def _no_new_privileges(_: Limits) -> None:
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


#: System calls that no function needs and that widen what it can reach: tracing, mounting, namespaces, kernel modules,
#: BPF, keyrings, io_uring, clocks, swap, reboot, performance counters and other processes' memory. Numbers on x86-64
#: and on 64-bit Arm.
# fmt: off
_REFUSED: dict[str, tuple[int, int | None]] = {
    "ptrace": (101, 117), "pivot_root": (155, 41), "chroot": (161, 51), "acct": (163, 89),
    "settimeofday": (164, 170), "mount": (165, 40), "umount2": (166, 39), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "init_module": (175, 105), "delete_module": (176, 106),
    "quotactl": (179, 60), "clock_settime": (227, 112), "kexec_load": (246, 104), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "unshare": (272, 97), "perf_event_open": (298, 241),
    "fanotify_init": (300, 262), "open_by_handle_at": (304, 265), "clock_adjtime": (305, 266), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "finit_module": (313, 273),
    "kexec_file_load": (320, 294), "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "pidfd_getfd": (438, 438), "mount_setattr": (442, 442),
}
# fmt: on

#: The filter's name of each machine's architecture, and the column of `_REFUSED` that is its own.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def _system_call_filter(_: Limits) -> None:
    """A seccomp filter that answers EPERM to the calls of `_REFUSED` and ends calls of foreign architectures."""
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    architecture, column = _ARCHITECTURES[platform.machine()]
    refused = [number for numbers in _REFUSED.values() if (number := numbers[column]) is not None]
    load, jump_equal, jump_greater_equal, give = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
    x32_calls = 0x40000000
    program = [
        (load, 0, 0, 4),
        (jump_equal, 1, 0, architecture),
        (give, 0, 0, kill),
        (load, 0, 0, 0),
        (jump_greater_equal, len(refused) + 1, 0, x32_calls),
    ]
    program += [(jump_equal, len(refused) - index, 0, number) for index, number in enumerate(refused)]
    program += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _check(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


FEATURES: dict[str, Callable[[Limits], None]] = {
    "user-namespace": _user_namespace,
    "mount-namespace": _mount_namespace,
    "read-only-file-system": _read_only,
    "network-namespace": _network_namespace,
    "resource-limits": _limits,
    "no-capabilities": _no_capabilities,
    "no-new-privileges": _no_new_privileges,
    "system-call-filter": _system_call_filter,
}

#: Features that others build on.
_PREREQUISITES = {"user-namespace", "mount-namespace", "no-new-privileges"}
