"""A process that models share, as the gateway drives it; and who is taken for holding what in it."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from hearth_runtime import house
from hearth_runtime.house import Footprint, Share
from test_zygote import Zygote, golden, launch_of

HANDLER = """
from hearth_runtime import InputError

class Model:
    def __init__(self, context):
        print("made")

    def load(self, model):
        if model.name == "broken":
            raise ValueError("no weights")
        return {"name": model.name, "held": bytearray(model.bytes)}

    def offload(self, model):
        return dict(model, kept=True)

    def restore(self, model):
        return model

    def predict(self, input, context):
        if input == "refuse":
            raise InputError("no")
        return [context.model["name"], "kept" in context.model]
"""


@pytest.fixture
def shared(tmp_path):
    """The gateway's end of a shared process that takes models."""
    zygote = Zygote("json")
    zygote.control.receive()
    connection, _ = zygote.start(launch_of(tmp_path, code=HANDLER, awaits_model=True, shared=True))
    control = house.ControlSocket(connection)
    assert [control.receive()["type"] for _ in range(2)] == ["loading", "waiting"]
    yield control, connection
    zygote.close()


def load(control, worker, name, size=1 << 20):
    model = {"name": name, "path": f"/weights/{name}", "bytes": size}
    control.send({"type": "load", "worker": worker, "model": model})
    return control.receive()


def connect(connection, worker):
    ours, theirs = socket.socketpair()
    line = json.dumps({**golden("worker-command-connect"), "worker": worker}).encode() + b"\n"
    socket.send_fds(connection, [line], [theirs.fileno()])
    theirs.close()
    return ours


def ask(ours, body=b""):
    head = (
        f"POST / HTTP/1.1\r\ncontent-type: text/plain\r\nhearth-request-id: r-1\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    ours.sendall(head.encode() + body)
    return ours.recv(4096).partition(b"\r\n\r\n")[2]


def test_models_come_answer_for_themselves_and_go(shared):
    control, connection = shared
    for worker, name in (("w-1", "one"), ("w-2", "two")):
        ready = load(control, worker, name)
        assert (ready["type"], ready["worker"], ready["restored"]) == ("ready", worker, False)
    first, second = connect(connection, "w-1"), connect(connection, "w-2")
    assert ask(second) == b'["two",false]' and ask(first) == b'["one",false]'
    measured = {message["worker"]: message["bytes"] for message in (control.receive(), control.receive())}
    assert measured.keys() == {"w-1", "w-2"}
    control.send({"type": "unload", "worker": "w-1", "keep": False})
    assert control.receive() == {"type": "unloaded", "kept": False, "worker": "w-1"}
    assert first.recv(1) == b"", "its connections are closed"
    assert ask(second) == b'["two",false]'


def test_a_request_that_is_refused_is_not_the_one_that_is_measured(shared):
    control, connection = shared
    load(control, "w-1", "picky")
    data = connect(connection, "w-1")
    for refused in (True, True, False, False):
        answer = ask(data, b"refuse" if refused else b"")
        assert (answer == b'["picky",false]') != refused
        if refused:
            assert b"function_input" in answer
    data.close()
    # Each refusal, and the first that was not.
    assert [control.receive()["type"] for _ in range(3)] == ["measured"] * 3
    control.send({"type": "unload", "worker": "w-1", "keep": False})
    assert control.receive()["type"] == "unloaded"


def test_a_model_that_is_kept_is_restored_under_another_worker(shared):
    control, connection = shared
    load(control, "w-1", "one")
    control.send({"type": "unload", "worker": "w-1", "keep": True})
    assert control.receive() == {**golden("worker-report-unloaded"), "worker": "w-1"}
    ready = load(control, "w-2", "one")
    assert (ready["worker"], ready["restored"]) == ("w-2", True)
    assert ask(connect(connection, "w-2")) == b'["one",true]'
    control.receive()
    control.send({"type": "unload", "worker": "w-2", "keep": True})
    control.receive()
    control.send({**golden("worker-command-discard"), "model": {"name": "one", "path": "/weights/one", "bytes": 1}})
    deadline = time.monotonic() + 10
    while load(control, "w-3", "one")["restored"]:
        assert time.monotonic() < deadline
        control.send({"type": "unload", "worker": "w-3", "keep": False})
        control.receive()


def test_a_model_that_fails_to_load_leaves_the_process_to_others(shared):
    control, connection = shared
    assert load(control, "w-1", "broken")["type"] == "failed"
    assert control.receive() == {"type": "unloaded", "kept": False, "worker": "w-1"}
    late = connect(connection, "w-1")
    assert late.recv(1) == b"", "a connection to what is gone is closed, and no other's"
    load(control, "w-2", "two")
    assert ask(connect(connection, "w-2")) == b'["two",false]'


class Machine:
    """Stands for the process's memory."""

    def __init__(self, monkeypatch):
        self.bytes = 1000
        monkeypatch.setattr(house, "resident_bytes", lambda: self.bytes)


def test_what_grows_alone_is_known(monkeypatch):
    machine = Machine(monkeypatch)
    footprint = Footprint("cpu")
    share = Share(weight=10)
    with footprint.growth(share):
        machine.bytes += 70
    machine.bytes += 500
    with footprint.growth(share):
        machine.bytes += 30
    assert footprint.bytes_of(share) == 100


def test_what_grows_beside_others_is_shared_out_by_size(monkeypatch):
    machine = Machine(monkeypatch)
    footprint = Footprint("cpu")
    known, small, large = Share(1), Share(10), Share(30)
    with footprint.growth(known):
        machine.bytes += 50
    entered, may_leave = threading.Event(), threading.Event()

    def grow_large():
        with footprint.growth(large):
            entered.set()
            may_leave.wait(10)

    thread = threading.Thread(target=grow_large)
    thread.start()
    entered.wait(10)
    with footprint.growth(small):
        machine.bytes += 400
    may_leave.set()
    thread.join()
    assert footprint.bytes_of(known) == 50
    assert (footprint.bytes_of(small), footprint.bytes_of(large)) == (100, 300)
    with footprint.end(large):
        machine.bytes -= 300
    assert footprint.bytes_of(small) == 100


def test_what_comes_while_another_goes_is_not_taken_for_small(monkeypatch):
    machine = Machine(monkeypatch)
    footprint = Footprint("cpu")
    goes, comes = Share(10), Share(10)
    with footprint.growth(goes):
        machine.bytes += 100
    with footprint.growth(comes):
        machine.bytes += 100
        with footprint.end(goes):
            machine.bytes -= 100
    assert footprint.bytes_of(comes) == 100


STREAMS = (
    HANDLER.replace(
        'return [context.model["name"], "kept" in context.model]',
        "yield from (b'1', context.model['name'].encode(), self.grow())",
    )
    + "\n    def grow(self):\n        self.grown = bytearray(32 << 20)\n        return b'3'\n"
)


def test_what_a_stream_takes_is_measured_at_its_end(tmp_path):
    zygote = Zygote("json")
    zygote.control.receive()
    connection, _ = zygote.start(launch_of(tmp_path, code=STREAMS, awaits_model=True, shared=True))
    control = house.ControlSocket(connection)
    control.receive(), control.receive()
    load(control, "w-1", "one")
    ours = connect(connection, "w-1")
    ours.sendall(b"POST / HTTP/1.1\r\nhearth-request-id: r-1\r\ncontent-length: 0\r\n\r\n")
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        answer += ours.recv(4096)
    assert b"one" in answer
    assert control.receive()["bytes"] > 30 << 20
    zygote.close()


def test_models_that_fail_leave_no_descriptor_behind(tmp_path):
    zygote = Zygote("json")
    zygote.control.receive()
    connection, _ = zygote.start(launch_of(tmp_path, code=HANDLER, awaits_model=True, shared=True))
    files = Path(f"/proc/{zygote.control.receive()['pid']}/fd")
    control = house.ControlSocket(connection)
    control.receive(), control.receive()
    before = len(list(files.iterdir()))
    for number in range(20):
        assert load(control, f"w-{number}", "broken")["type"] == "failed"
        assert control.receive()["type"] == "unloaded"
    assert len(list(files.iterdir())) <= before + 2
    zygote.close()
