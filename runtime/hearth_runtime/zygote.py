"""The zygote: imports what functions preload, then forks workers on request.

Descriptor 3 is the control socket to the gateway; the zygote ends when it closes, and its workers with it. The zygote
holds libraries only: no session, no OpenMP region and no CUDA context may exist before a fork, since none survives one.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from typing import Any

from hearth_runtime import isolation, worker
from hearth_runtime.control import ControlSocket, Message

CONTROL_DESCRIPTOR = 3
#: Control socket and log pipe (twice) of a new worker.
LAUNCH_DESCRIPTORS = 3


def main(modules: list[str]) -> None:
    """Runs the zygote until the gateway is gone."""
    control = ControlSocket(socket.socket(fileno=CONTROL_DESCRIPTOR))
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            traceback.print_exc()
            control.send({"type": "failed", "reason": f"preload of '{module}' failed: {_one_line(error)}"})
            return
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/tmp")
        missing = isolation.probe(directory)
    Zygote(control, missing).run()


class Zygote:
    """Forks workers, reports their ends, passes signals on."""

    def __init__(self, control: ControlSocket, missing: dict[str, str]) -> None:
        self._control = control
        self._missing = missing
        self._workers: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._pid = os.getpid()
        self._child_ended, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = wakeup
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        threads, warning = foreign_threads()
        gc.collect()
        gc.freeze()
        self._control.send(
            {
                "type": "ready",
                "pid": self._pid,
                "threads": threads,
                "forkable": warning is None,
                "warning": warning,
                "missing": self._missing,
            }
        )
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        try:
            while self._turn(poll.poll()):
                pass
        except ConnectionError:
            # Something was reported to a gateway that is gone.
            pass
        finally:
            for pid in self._workers:
                _signal_group(pid, signal.SIGKILL)

    def _turn(self, events: list[tuple[int, int]]) -> bool:
        """Sees to what has happened; False once the gateway is gone."""
        for descriptor, _ in events:
            if descriptor == self._child_ended:
                os.read(self._child_ended, 4096)
                self._reap()
            elif not self._control.read():
                return False
            while (message := self._control.buffered()) is not None:
                self._take(message)
        return True

    def _take(self, message: Message) -> None:
        if message["type"] == "start":
            self._start(message["launch"], self._control.take_descriptors(LAUNCH_DESCRIPTORS))
        elif message["type"] == "signal":
            pid = self._pids.get(message["worker"])
            if pid is not None:
                _signal_group(pid, message["number"])

    def _start(self, launch: dict[str, Any], descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            # The machine has no process left; the workers that run must not suffer for it.
            with contextlib.suppress(OSError):
                os.write(descriptors[1], f"fork failed: {error}\n".encode())
            pid = -1
        if pid == 0:
            self._become_worker(launch, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid < 0:
            self._control.send({"type": "exited", "worker": launch["worker"], "status": 1, "peak_bytes": 0})
            return
        self._workers[pid] = launch["worker"]
        self._pids[launch["worker"]] = pid
        self._control.send({"type": "started", "worker": launch["worker"], "pid": pid})

    def _become_worker(self, launch: dict[str, Any], descriptors: list[int]) -> None:
        """In the child: never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            isolation.set_parent_death_signal(signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(1)
            control = self._own_descriptors(descriptors)
            _reseed()
            worker.isolate(launch, self._missing)
            worker.enter(launch, control)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _own_descriptors(self, descriptors: list[int]) -> socket.socket:
        """Control socket, output and nothing else of the zygote's."""
        control, output, error = descriptors
        os.dup2(output, 1)
        os.dup2(error, 2)
        self._control.close()
        os.close(self._child_ended)
        os.close(self._wakeup)
        os.dup2(control, CONTROL_DESCRIPTOR, inheritable=True)
        os.closerange(CONTROL_DESCRIPTOR + 1, max(descriptors) + 1)
        return socket.socket(fileno=CONTROL_DESCRIPTOR)

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._workers.pop(pid, None)
            if name is None:
                continue
            del self._pids[name]
            # What the worker started must not outlive it.
            _signal_group(pid, signal.SIGKILL)
            message: Message = {"type": "exited", "worker": name, "peak_bytes": usage.ru_maxrss * 1024}
            if os.WIFSIGNALED(status):
                message["signal"] = os.WTERMSIG(status)
            else:
                message["status"] = os.WEXITSTATUS(status)
            self._control.send(message)


def foreign_threads() -> tuple[int, str | None]:
    """How many threads the imports left, and a warning when a fork beside them is not known to be safe.

    onnxruntime leaves one native thread, which does no harm. Any other one may hold a lock at the fork.
    """
    names = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    harmless = 1 + ("onnxruntime" in sys.modules)
    if threading.active_count() == 1 and len(names) <= harmless:
        return len(names), None
    return len(names), (
        f"the preloaded modules left {len(names) - 1} threads ({', '.join(sorted(set(names)))}); "
        "workers start with an interpreter of their own"
    )


def _reseed() -> None:
    """Forks must not share numpy's random numbers; Python's own module sees to itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        # The group's leader may not have called setsid yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
