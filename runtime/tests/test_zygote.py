"""A zygote as the gateway drives it: real processes, real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hearth_runtime.control import ControlSocket

RUNTIME = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_name("golden")

HANDLER = """
import sys

class Model:
    def load(self, context):
        self.word = context.config["word"]
        print("loading", file=sys.stderr)

    def predict(self, input, context):
        print("called")
        return [self.word, input, context.request_id]
"""


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


class Zygote:
    """A zygote process and the gateway's end of its control socket."""

    def __init__(self, *modules):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BOOT.format(descriptor=theirs.fileno(), runtime=RUNTIME), *modules],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.socket = ours
        self.control = ControlSocket(ours)

    def start(self, launch):
        """Starts a worker. Returns its control socket and the reading end of its log."""
        ours, theirs = socket.socketpair()
        log, writing = os.pipe()
        line = json.dumps({"type": "start", "launch": launch}).encode() + b"\n"
        socket.send_fds(self.socket, [line], [theirs.fileno(), writing, writing])
        theirs.close()
        os.close(writing)
        return ours, log

    def close(self):
        self.socket.close()
        self.process.wait(timeout=10)


BOOT = """
import os, sys
os.dup2({descriptor}, 3)
sys.path.insert(0, "{runtime}")
from hearth_runtime import zygote
zygote.main(sys.argv[1:])
"""


@pytest.fixture
def zygote():
    running = Zygote("json")
    yield running
    running.close()


def launch_of(folder, **changes):
    (folder / "bundle").mkdir()
    (folder / "bundle" / "handler.py").write_text(changes.pop("code", HANDLER))
    (folder / "run" / "tmp").mkdir(parents=True)
    launch = golden("zygote-command-start")["launch"]
    launch |= {"bundle": str(folder / "bundle"), "directory": str(folder / "run"), "config": '{"word": "w"}'}
    launch |= {
        "python": sys.executable,
        "memory_bytes": None,
        "hidden": "",
        "model": None,
        "visible": [],
        "device": None,
    }
    launch |= changes
    return launch


def read_all(descriptor):
    with os.fdopen(descriptor, "rb") as file:
        return file.read().decode()


@pytest.mark.parametrize("fork", [True, False])
def test_a_worker_from_start_to_end(zygote, tmp_path, fork):
    ready = zygote.control.receive()
    assert ready.keys() - {"warning"} == golden("zygote-report-ready").keys()
    assert ready["forkable"] is True
    connection, log = zygote.start(launch_of(tmp_path, fork=fork))
    control = ControlSocket(connection)
    started = zygote.control.receive()
    assert started.keys() == golden("zygote-report-started").keys()
    assert control.receive() == golden("worker-report-loading")
    report = control.receive()
    assert report.keys() == golden("worker-report-ready").keys(), report

    ours, theirs = socket.socketpair()
    socket.send_fds(connection, [json.dumps(golden("worker-command-connect")).encode() + b"\n"], [theirs.fileno()])
    theirs.close()
    ours.sendall(
        b"POST / HTTP/1.1\r\ncontent-type: application/json\r\nhearth-request-id: r-1\r\ncontent-length: 1\r\n\r\n7"
    )
    assert ours.recv(4096).endswith(b'["w",7,"r-1"]')

    control.send(golden("worker-command-drain"))
    exited = zygote.control.receive()
    assert (exited["type"], exited["worker"], exited["status"]) == ("exited", "w-7", 0)
    lines = read_all(log).split("\n")
    assert "\x1e\x1floading" in lines
    assert "\x1er-1\x1fcalled" in lines


def test_what_workers_started_ends_with_a_gateway_that_is_gone_as_a_worker_ends(zygote, tmp_path):
    zygote.control.receive()
    program = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    _, log = zygote.start(launch_of(tmp_path / "first", command=program))
    zygote.control.receive()
    with os.fdopen(log) as lines:
        started = int(lines.readline())
    other, _ = zygote.start(launch_of(tmp_path / "second"))
    report = zygote.control.receive()
    ControlSocket(other).receive()

    # The zygote learns of the worker first: it has an end to report, and nobody reads it.
    zygote.socket.shutdown(socket.SHUT_RD)
    os.kill(report["pid"], signal.SIGKILL)
    zygote.process.wait(timeout=10)
    deadline = time.monotonic() + 10
    while runs(started):
        assert time.monotonic() < deadline, "what a worker started outlived the gateway"
        time.sleep(0.01)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


MODELS = """
class Model:
    def load(self, model):
        return [model.name, model.path.read_text(), model.bytes]

    def predict(self, input, context):
        return [*context.model, context.model_name]
"""


@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_loads_the_model_it_is_told(zygote, tmp_path, waits):
    zygote.control.receive()
    weights = tmp_path / "weights"
    weights.write_text("w")
    model = golden("worker-command-load")["model"] | {"path": str(weights)}
    changes = {"awaits_model": True} if waits else {"model": model}
    connection, log = zygote.start(launch_of(tmp_path, code=MODELS, **changes))
    control = ControlSocket(connection)
    assert control.receive() == golden("worker-report-loading")
    if waits:
        assert control.receive() == golden("worker-report-waiting")
        control.send(golden("worker-command-load") | {"model": model})
    assert control.receive()["type"] == "ready"
    ours, theirs = socket.socketpair()
    socket.send_fds(connection, [json.dumps(golden("worker-command-connect")).encode() + b"\n"], [theirs.fileno()])
    theirs.close()
    ours.sendall(b"POST / HTTP/1.1\r\nhearth-request-id: r-1\r\ncontent-length: 0\r\n\r\n")
    assert ours.recv(4096).endswith(b'["digits-007","w",25000000,"digits-007"]')
    os.close(log)


@pytest.mark.parametrize(
    ("statement", "is_exhausted"),
    [("raise MemoryError", True), ("raise RuntimeError('CUDA out of memory.')", True), ("raise OSError('no')", False)],
)
def test_a_load_for_want_of_memory_is_told_from_others(zygote, tmp_path, statement, is_exhausted):
    zygote.control.receive()
    connection, log = zygote.start(launch_of(tmp_path, code=statement + "\n"))
    control = ControlSocket(connection)
    control.receive()
    assert control.receive()["out_of_memory"] is is_exhausted
    os.close(log)


def test_a_load_that_fails_is_reported(zygote, tmp_path):
    zygote.control.receive()
    connection, log = zygote.start(launch_of(tmp_path, code="raise ValueError('no weights')\n"))
    control = ControlSocket(connection)
    control.receive()
    report = control.receive()
    assert report.keys() == golden("worker-report-failed").keys()
    assert report["message"] == "ValueError: no weights"
    assert "raise ValueError" in report["traceback"]
    assert "raise ValueError" in read_all(log)


def test_a_signal_ends_a_worker(zygote, tmp_path):
    zygote.control.receive()
    connection, log = zygote.start(launch_of(tmp_path))
    control = ControlSocket(connection)
    while control.receive()["type"] != "ready":
        pass
    zygote.control.receive()
    zygote.control.send(golden("zygote-command-signal"))
    exited = zygote.control.receive()
    assert exited.keys() == golden("zygote-report-exited").keys()
    assert exited["signal"] == signal.SIGKILL
    os.close(log)


def test_a_preload_that_fails_ends_the_zygote():
    running = Zygote("not_installed_here")
    report = running.control.receive()
    assert report.keys() == golden("zygote-report-failed").keys()
    assert "not_installed_here" in report["reason"]
    assert running.control.receive() is None
    running.close()


def test_threads_left_by_an_import_make_a_fork_unsafe(tmp_path):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    ours, theirs = socket.socketpair()
    boot = BOOT.format(descriptor=theirs.fileno(), runtime=RUNTIME).replace(
        "import os, sys\n", f"import os, sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", boot, "threaded"], pass_fds=[theirs.fileno()])
    theirs.close()
    report = ControlSocket(ours).receive()
    assert report["forkable"] is False
    assert "1 threads" in report["warning"]
    ours.close()
    process.wait(timeout=10)


def test_workers_end_with_the_zygote(zygote, tmp_path):
    zygote.control.receive()
    connection, log = zygote.start(launch_of(tmp_path))
    pid = zygote.control.receive()["pid"]
    zygote.process.kill()
    zygote.process.wait()
    connection.close()
    read_all(log)  # ends when the last process that holds it has
    # Descriptors close a moment before the process counts as ended.
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid):
    """A process that has ended but was not reaped yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
