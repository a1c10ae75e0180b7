"""Models that share a process: what they share, and what happens to one because of another."""

import concurrent.futures
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest
from gateway import PATIENCE, Gateway

HANDLER = """
import os
import threading
import time


class Model:
    def __init__(self, context):
        self.calls = []

    def load(self, model):
        orders = model.path.read_text()
        if "slow" in orders:
            time.sleep(2)
        print("load", model.name)
        return {"name": model.name, "orders": orders}

    def unload(self, model):
        print("unload", model["name"])
        if "stays" in model["orders"]:
            time.sleep(3600)
        if "raises" in model["orders"]:
            raise RuntimeError("does not like to go")

    def predict(self, input, context):
        value = input or {}
        if value.get("crash"):
            os._exit(7)
        try:
            for _ in range(int(value.get("sleep", 0) * 100)):
                time.sleep(0.01)
        except BaseException as error:
            print("interrupted", type(error).__name__)
            raise
        self.calls.append(context.model_name)
        return {"name": context.model["name"], "pid": os.getpid(), "calls": len(self.calls)}
"""


@pytest.fixture
def gateways():
    started = []

    def start(models, spec="", **settings):
        gateway = Gateway(**settings)
        started.append(gateway)
        entries = "".join(f"  - {{path: weights/{name}}}\n" for name in models)
        files = {f"weights/{name}": orders for name, orders in models.items()}
        gateway.deploy("many", HANDLER, f"isolation: shared\nmodels:\n{entries}{spec}", files)
        return gateway

    yield start
    for gateway in started:
        gateway.close()


def call(gateway, model, value="{}", timeout=30):
    return gateway.request(f"/functions/many/models/{model}", value.encode(), timeout=timeout)


def said(gateway, *words):
    lines = gateway.functions_log("many").splitlines()
    return sum(line.split()[-len(words) :] == list(words) for line in lines)


def test_models_live_in_one_process_and_share_the_authors_object(gateways):
    gateway = gateways({"a": "", "b": "", "c": ""})
    seen = [call(gateway, name).json for name in ("a", "b", "c")]
    assert [one["name"] for one in seen] == ["a", "b", "c"]
    assert len({one["pid"] for one in seen}) == 1 and [one["calls"] for one in seen] == [1, 2, 3]
    assert {row["pid"] for row in gateway.workers()} == {seen[0]["pid"]}
    assert len({row["worker"] for row in gateway.workers()}) == 3


def test_models_are_served_side_by_side(gateways):
    gateway = gateways({"a": "", "b": ""})
    call(gateway, "a"), call(gateway, "b")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        slow = pool.submit(call, gateway, "a", '{"sleep": 2}')
        time.sleep(0.1)
        assert call(gateway, "b").status == 200
        assert time.monotonic() - began < 1.5 * PATIENCE and not slow.done()
        assert slow.result().status == 200


def test_a_load_does_not_hold_up_other_models(gateways):
    gateway = gateways({"a": "", "b": "slow"})
    call(gateway, "a")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        loading = pool.submit(call, gateway, "b")
        time.sleep(0.3)
        assert call(gateway, "a").status == 200 and not loading.done()
        assert loading.result().status == 200


def test_a_crash_costs_the_requests_in_the_process_and_no_more(gateways):
    gateway = gateways({"a": "", "b": ""})
    first = call(gateway, "a").json["pid"]
    call(gateway, "b")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        beside = pool.submit(call, gateway, "b", '{"sleep": 5}')
        gateway.wait_for(lambda: any(w["state"] == "busy" for w in gateway.workers()), "b to be busy")
        answer = call(gateway, "a", '{"crash": true}')
        assert (answer.status, answer.code) == (502, "worker_died")
        assert (beside.result().status, beside.result().code) == (502, "worker_died")
    again = [call(gateway, name).json["pid"] for name in ("a", "b")]
    assert again[0] == again[1] != first


def test_what_ends_the_process_while_models_load_is_told_and_tried_again(gateways):
    gateway = gateways({"a": "", "b": "slow"})
    pid = call(gateway, "a").json["pid"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(call, gateway, "b")
        gateway.wait_for(lambda: len(gateway.workers()) == 2, "b to be loading")
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert loading.result().status == 200, "its load is tried again"


def test_a_client_that_leaves_interrupts_its_own_request_alone(gateways):
    gateway = gateways({"a": "", "b": ""})
    pid = call(gateway, "a").json["pid"]
    call(gateway, "b")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        beside = pool.submit(call, gateway, "b", '{"sleep": 2}')
        with socket.create_connection(gateway.address) as client:
            body = b'{"sleep": 60}'
            client.sendall(
                b"POST /functions/many/models/a HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            gateway.wait_for(lambda: sum(w["state"] == "busy" for w in gateway.workers()) == 2, "both to be busy")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert beside.result().status == 200
    gateway.wait_for(lambda: said(gateway, "interrupted", "Cancelled"), "the request to be interrupted")
    assert call(gateway, "a").json["pid"] == pid


def test_a_model_is_unloaded_with_its_authors_word(gateways):
    gateway = gateways({"a": "", "b": "raises"}, spec="scaling: {keep-alive: 300ms}\n")
    pid = call(gateway, "a").json["pid"]
    call(gateway, "b")
    gateway.wait_for(lambda: not gateway.workers(), "both to go")
    assert said(gateway, "unload", "a") == 1 and said(gateway, "unload", "b") == 1
    assert call(gateway, "b").json["pid"] == pid, "the process waits a while for the next model"


def test_the_process_ends_when_nobody_needs_it(gateways):
    gateway = gateways({"a": ""}, spec="scaling: {keep-alive: 100ms}\n")
    pid = call(gateway, "a").json["pid"]
    gateway.wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the process to end", timeout=25)
    assert call(gateway, "a").json["pid"] != pid


def test_a_model_that_does_not_let_go_is_ended_with_its_process(gateways):
    gateway = gateways({"a": "stays", "b": ""}, spec="scaling: {keep-alive: 300ms}\n")
    pid = call(gateway, "a").json["pid"]
    gateway.wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the process to be ended", timeout=20)
    gateway.wait_for(lambda: not gateway.workers(), "the model to be gone")
    assert call(gateway, "b").json["pid"] != pid
    assert call(gateway, "a").status == 200


def test_many_requests_at_a_time_to_one_model(gateways):
    gateway = gateways({"a": "", "b": ""}, spec="scaling: {max-concurrency: 4}\n")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: call(gateway, "ab"[n % 2], '{"sleep": 0.05}'), range(80)))
    assert {answer.status for answer in answers} == {200}
    assert all(answer.json["name"] == "ab"[number % 2] for number, answer in enumerate(answers))


def test_loads_and_requests_from_everywhere_for_a_while(gateways):
    """Models come and go under load, by the hundred: none is lost, and none answers for another."""
    names = [f"m{number}" for number in range(12)]
    gateway = gateways(dict.fromkeys(names, ""), spec="scaling: {keep-alive: 5ms}\n")
    calls = 600 if PATIENCE == 1 else 100
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: (names[n * 7 % 12], call(gateway, names[n * 7 % 12])), range(calls)))
    for name, answer in answers:
        assert answer.status == 200, answer.body
        assert answer.json["name"] == name
    gateway.wait_for(lambda: not gateway.workers(), "all to go")
    row = gateway.admin_request("GET", "/v1/devices").json[0]
    assert (row["grantedBytes"], row["workers"], row["waiting"]) == (0, 0, 0)


def test_a_model_removed_while_it_loads_takes_no_other_along(gateways, tmp_path):
    gateway = gateways({"a": ""})
    pid = call(gateway, "a").json["pid"]
    (tmp_path / "b").write_text("slow")
    gateway.cli("models", "add", "many", "b", str(tmp_path / "b"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        beside = pool.submit(call, gateway, "a", '{"sleep": 2.5}')
        loading = pool.submit(call, gateway, "b")
        gateway.wait_for(lambda: len(gateway.workers()) == 2, "b to be loading")
        time.sleep(0.3)
        gateway.cli("models", "remove", "many", "b")
        assert beside.result().status == 200 and beside.result().json["pid"] == pid
        assert loading.result().code == "model_not_found"
    gateway.wait_for(lambda: len(gateway.workers()) == 1, "b to go")


def test_a_library_that_is_being_imported_is_not_asked(gateways):
    """PyTorch is looked for to give a GPU's memory back: another model may be importing it at that moment."""
    gateway = gateways({"a": "", "b": ""})
    half = "import sys, types\nsys.modules['torch'] = types.ModuleType('torch')\n" + HANDLER
    files = {"weights/a": "", "weights/b": ""}
    gateway.deploy("many", half, "isolation: shared\nmodels: weights\nscaling: {keep-alive: 200ms}\n", files)
    for name in ("a", "b", "a"):
        assert call(gateway, name).status == 200
    gateway.wait_for(lambda: not gateway.workers(), "all to go")
    assert call(gateway, "a").status == 200


def test_progress_of_what_models_share_keeps_their_loads_alive(gateways):
    gateway = gateways({"a": ""})
    slow = HANDLER.replace(
        "self.calls = []",
        "self.calls = []\n        for step in range(8):\n            time.sleep(0.5)\n            context.progress(step / 8)",
    )
    spec = "isolation: shared\nmodels: weights\ntimeouts: {load-stall-timeout: 2s}\n"
    gateway.deploy("many", slow, spec, {"weights/a": ""})
    assert call(gateway, "a").status == 200


def test_a_load_that_hangs_holds_up_neither_a_redeploy_nor_the_end(gateways):
    gateway = gateways({"a": ""})
    hangs = HANDLER.replace("time.sleep(2)", "time.sleep(3600)")
    spec = "isolation: shared\nmodels: weights\n"
    gateway.deploy("many", hangs, spec, {"weights/a": "slow", "weights/b": ""})
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        loading = pool.submit(call, gateway, "a", timeout=60)
        gateway.wait_for(lambda: any(row["state"] == "starting" for row in gateway.workers()), "a to be loading")
        time.sleep(0.3)
        old = {row["worker"] for row in gateway.workers()}
        gateway.deploy("many", HANDLER, spec, {"weights/a": "", "weights/b": ""})
        assert loading.result().status == 200, "the new version answers"
        gateway.wait_for(lambda: not old & {row["worker"] for row in gateway.workers()}, "the old version to end")
    gateway.cli("delete", "many")
    gateway.deploy("many", hangs, spec, {"weights/a": "slow", "weights/b": ""})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(call, gateway, "a", timeout=60)
        gateway.wait_for(lambda: any(row["state"] == "starting" for row in gateway.workers()), "a to be loading")
        began = time.monotonic()
        gateway.terminate()
        assert time.monotonic() - began < 20 * PATIENCE
        assert loading.result().status == 503
