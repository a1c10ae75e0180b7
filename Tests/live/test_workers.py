"""Starting, keeping, losing and ending workers."""

import concurrent.futures
import json
import os
import random
import signal
import threading
import time

import pytest
from gateway import PATIENCE, Gateway, alive

SLEEPER = """
import time, os

class Model:
    def predict(self, input, context):
        time.sleep(input)
        return os.getpid()
"""


def test_a_thousand_calls_of_a_cold_function_start_one_worker(gateway):
    gateway.deploy(
        "cold",
        "import os\nclass Model:\n    def load(self, context):\n        print('loaded')\n"
        "    def predict(self, input, context):\n        return os.getpid()\n",
        "scaling: {max-workers: 1, max-queue-length: 1000}\n",
    )
    with concurrent.futures.ThreadPoolExecutor(250) as pool:
        answers = list(pool.map(lambda _: gateway.call("cold", timeout=60), range(1000)))
    assert [answer.status for answer in answers] == [200] * 1000
    assert len({answer.body for answer in answers}) == 1
    assert gateway.functions_log("cold").count("loaded") == 1


def test_goes_to_zero_and_comes_back(gateway):
    gateway.deploy("idle", spec="scaling: {keep-alive: 300ms}\n")
    assert gateway.call("idle").start == "zygote"
    pid = gateway.workers()[0]["pid"]
    gateway.wait_for(lambda: gateway.workers() == [], "zero workers")
    gateway.wait_for(lambda: not alive(pid), "the worker's end")
    assert gateway.call("idle").start == "zygote"


def test_requests_around_the_idle_expiry_are_served(gateway):
    gateway.deploy("edge", spec="scaling: {keep-alive: 30ms}\n")
    for number in range(150):
        answer = gateway.call("edge", number)
        assert (answer.status, answer.json["input"]) == (200, number)
        time.sleep(random.uniform(0.02, 0.05))


def test_min_workers_are_there_before_the_first_call_and_after_a_kill(gateway):
    gateway.deploy("warm", spec="scaling: {min-workers: 2}\n")
    idle = lambda: [row for row in gateway.workers() if row["state"] == "idle" and row.get("pid")]  # noqa: E731
    gateway.wait_for(lambda: len(idle()) == 2, "two idle workers")
    assert gateway.call("warm").start == "hot"
    victim = idle()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    gateway.wait_for(lambda: len(idle()) == 2 and victim not in [row["pid"] for row in idle()], "a replacement")


def test_policy_changes_live_and_survives_a_restart(gateway):
    gateway.deploy("policy")
    gateway.cli("policy", "policy", "--min-workers", "1", "--keep-alive", "7s")
    gateway.wait_for(lambda: len(gateway.workers()) == 1, "the worker that min-workers asks for")
    gateway.kill()
    gateway.start()
    rows = {row["name"]: row for row in json.loads(gateway.cli("policy", "policy", "--json").stdout)}
    assert (rows["keep-alive"]["value"], rows["keep-alive"]["source"]) == ("7s", "live")
    assert (rows["max-workers"]["value"], rows["max-workers"]["source"]) == ("100", "default")
    gateway.cli("policy", "policy", "--reset", "keep-alive")
    rows = {row["name"]: row for row in json.loads(gateway.cli("policy", "policy", "--json").stdout)}
    assert (rows["keep-alive"]["value"], rows["keep-alive"]["source"]) == ("5m", "default")
    result = gateway.cli("policy", "policy", "--min-workers", "500", check=False)
    assert result.returncode == 1 and "max-workers" in result.stderr


def test_max_concurrency_serves_that_many_at_once(gateway):
    gateway.deploy("threads", SLEEPER, "scaling: {max-workers: 1, max-concurrency: 4}\n")
    gateway.call("threads", 0)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: gateway.call("threads", 0.5), range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert time.monotonic() - began < 1.5 * PATIENCE


def test_the_queue_is_bounded(gateway):
    gateway.deploy("full", SLEEPER, "scaling: {max-workers: 1, max-queue-length: 2}\n")
    gateway.call("full", 0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.call("full", 0.4), range(8)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(200) >= 3
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.code == "queue_full"
    assert int(refused.fields["retry-after"]) >= 1


def test_a_broken_load_gives_its_reason(gateway):
    gateway.deploy("broken", "class Model:\n    def load(self, context):\n        raise OSError('no weights here')\n")
    answer = gateway.call("broken")
    assert (answer.status, answer.code) == (503, "load_failed")
    assert "OSError: no weights here" in answer.json["error"]["message"]
    began = time.monotonic()
    assert gateway.call("broken").code == "load_failed"
    assert time.monotonic() - began < 0.5 * PATIENCE, "a remembered failure is answered at once"
    assert "failing" in gateway.cli("list").stdout
    gateway.deploy("broken")
    assert gateway.call("broken").status == 200, "a new version is tried afresh"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("import nothing_like_this\nclass Model: pass\n", "ModuleNotFoundError"),
        ("class Model\n", "SyntaxError"),
        ("class Other:\n    pass\n", "no class named Model"),
        ("class Model:\n    pass\n", "no method predict"),
        ("import os\nos._exit(3)\n", "exited with status 3"),
        ("import os\nos.kill(os.getpid(), 9)\n", "SIGKILL"),
    ],
)
def test_every_way_to_break_a_load_is_told(shared, handler, reason):
    name = "b" + str(abs(hash(handler)))[:10]
    shared.deploy(name, handler)
    answer = shared.call(name)
    assert (answer.status, answer.code) == (503, "load_failed")
    assert reason in answer.json["error"]["message"]


def test_a_stalled_load_is_ended(gateway):
    gateway.deploy(
        "stalled",
        "import time\nclass Model:\n    def load(self, context):\n        time.sleep(60)\n",
        "timeouts: {load-stall-timeout: 300ms}\n",
    )
    answer = gateway.call("stalled", timeout=60)
    assert (answer.status, answer.code) == (503, "load_failed")


def test_progress_keeps_a_slow_load_alive(gateway):
    gateway.deploy(
        "slow",
        "import time\nclass Model:\n    def load(self, context):\n        for step in range(10):\n"
        "            context.progress(step / 10, 'reading')\n            time.sleep(0.2)\n"
        "    def predict(self, input, context):\n        return 1\n",
        "timeouts: {load-stall-timeout: 1s}\n",
    )
    assert gateway.call("slow", timeout=60).status == 200


def test_cold_start_timeout(gateway):
    gateway.deploy(
        "late",
        "import time\nclass Model:\n    def load(self, context):\n        time.sleep(3)\n"
        "    def predict(self, input, context):\n        return 1\n",
        "timeouts: {cold-start-timeout: 300ms}\n",
    )
    answer = gateway.call("late")
    assert (answer.status, answer.code) == (504, "cold_start_timeout")


def test_time_limits_of_a_request(gateway):
    gateway.deploy("limits", SLEEPER, "timeouts: {first-byte-timeout: 400ms}\n")
    answer = gateway.call("limits", 30)
    assert (answer.status, answer.code) == (504, "first_byte_timeout")
    gateway.wait_for(lambda: [row["state"] for row in gateway.workers()] == ["idle"], "a worker that is free again")
    assert gateway.call("limits", 0).start == "hot", "the sleeping request was interrupted"


def test_a_client_that_leaves_stops_its_work(gateway):
    gateway.deploy(
        "leave",
        "import time\nfrom hearth_runtime import Cancelled\nclass Model:\n    def predict(self, input, context):\n"
        "        return self.parts()\n    def parts(self):\n        try:\n            for i in range(1000):\n"
        "                yield 'x' * 1000\n                time.sleep(0.02)\n        except (Cancelled, GeneratorExit):\n"
        "            print('stopped early')\n            raise\n",
    )
    import socket

    connection = socket.create_connection(gateway.address)
    connection.sendall(b"POST /functions/leave HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    gateway.wait_for(lambda: "stopped early" in gateway.functions_log("leave"), "the cancellation in the author's code")
    gateway.wait_for(lambda: [row["state"] for row in gateway.workers()] == ["idle"], "the free slot")


def test_kill_of_workers_at_two_hundred_random_points(gateway):
    """No hang, a correct status each time, and a replacement that serves."""
    gateway.deploy("victim", SLEEPER, "scaling: {max-workers: 3, min-workers: 1}\n")
    kills = 200 if PATIENCE == 1.0 else 40
    stop = threading.Event()
    statuses = []
    slowest = []

    def client():
        generator = random.Random(threading.get_ident())
        while not stop.is_set():
            began = time.monotonic()
            answer = gateway.call("victim", generator.uniform(0, 0.03))
            statuses.append(answer.status)
            slowest.append(time.monotonic() - began)
            if answer.status != 200:
                assert (answer.status, answer.code) == (502, "worker_died"), answer.body

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            kill_workers(gateway, kills)
        finally:
            stop.set()
        for future in clients:
            future.result(timeout=60)
    assert statuses.count(200) > len(statuses) / 2
    assert max(slowest) < 10 * PATIENCE
    assert gateway.call("victim", 0).status == 200


def kill_workers(gateway, count):
    """Kills that many running workers, each at a random point."""
    while count:
        running = [row["pid"] for row in gateway.workers() if row["state"] in ("idle", "busy") and row.get("pid")]
        time.sleep(random.uniform(0, 0.04))
        if not running:
            continue
        try:
            os.kill(random.choice(running), signal.SIGKILL)
        except ProcessLookupError:
            continue
        count -= 1


def test_a_crash_says_in_the_log_where_it_was(gateway):
    gateway.deploy(
        "crash", "import ctypes\nclass Model:\n    def predict(self, input, context):\n        ctypes.string_at(0)\n"
    )
    assert gateway.call("crash").code == "worker_died"
    gateway.wait_for(lambda: "by signal 11 (SIGSEGV)" in gateway.functions_log("crash"), "the worker's end in the log")
    lines = gateway.functions_log("crash")
    assert "Segmentation fault" in lines and 'handler.py", line 4 in predict' in lines


def test_a_killed_worker_is_a_502_within_a_second(gateway):
    gateway.deploy(
        "dies", "import os\nclass Model:\n    def predict(self, input, context):\n        os.kill(os.getpid(), 9)\n"
    )
    began = time.monotonic()
    answer = gateway.call("dies")
    assert (answer.status, answer.code) == (502, "worker_died")
    assert "'dies'" in answer.json["error"]["message"]
    assert time.monotonic() - began < 1.5 * PATIENCE


def test_no_orphan_survives_a_killed_gateway(gateway):
    gateway.deploy("orphan", SLEEPER, "scaling: {min-workers: 2}\n")
    gateway.deploy("program", spec="command: [sleep.sh]\n", files={"sleep.sh": "#!/bin/sh\nsleep 1000 & wait\n"})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: gateway.request("/functions/program"))
        gateway.wait_for(lambda: len([row for row in gateway.workers() if row.get("pid")]) == 3, "three workers")
        pids = [row["pid"] for row in gateway.workers()]
        children = [pid for pid in descendants(gateway.process.pid) if alive(pid)]
        assert set(pids) <= set(children)
        gateway.kill()
    gateway.wait_for(lambda: not any(alive(pid) for pid in children), "the end of every child")


#: A function that starts a process, and tells its own and its zygote's number.
PARENT = """
import os, subprocess

class Model:
    def load(self, context):
        subprocess.Popen(["sleep", "1000"])

    def predict(self, input, context):
        return os.getpid(), os.getppid()
"""


def test_no_orphan_survives_a_killed_zygote(gateway):
    gateway.deploy("parent", PARENT)
    worker, zygote = gateway.call("parent").json
    started = descendants(worker)
    assert len(started) == 1
    os.kill(zygote, signal.SIGKILL)
    gateway.wait_for(lambda: not any(alive(pid) for pid in [worker, *started]), "the end of what the worker started")
    assert gateway.call("parent").json[1] != zygote


def descendants(pid):
    """Process ids below one, read from /proc."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, frontier = [], [pid]
    while frontier:
        parent = frontier.pop()
        below = [child for child, above in parents.items() if above == parent]
        found += below
        frontier += below
    return found


def test_sigterm_drains(gateway):
    gateway.deploy("drain", SLEEPER)
    gateway.call("drain", 0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(gateway.call, "drain", 1.0)
        gateway.wait_for(lambda: [row["state"] for row in gateway.workers()] == ["busy"], "a busy worker")
        pids = descendants(gateway.process.pid)
        assert gateway.terminate() == 0
        assert running.result().status == 200
    assert not any(alive(pid) for pid in pids)


def test_no_orphan_survives_sigterm(gateway):
    gateway.deploy("parent", PARENT)
    worker, zygote = gateway.call("parent").json
    started = descendants(worker)
    # It does not come to clean up behind the worker before it is ended itself.
    os.kill(zygote, signal.SIGSTOP)
    assert gateway.terminate() == 0
    pids = [zygote, worker, *started]
    gateway.wait_for(lambda: not any(alive(pid) for pid in pids), "the end of every child", timeout=5)


ISOLATION = """
import os, socket, ctypes

def attempt(action):
    try:
        action()
        return "allowed"
    except OSError as error:
        return error.strerror

class Model:
    def predict(self, input, context):
        libc = ctypes.CDLL(None, use_errno=True)
        tmp = os.environ["TMPDIR"]
        def mount():
            if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        def quota():
            with open(f"{tmp}/big", "wb") as file:
                for _ in range(64):
                    file.write(b"x" * (1 << 20))
        result = {
            "bundle": attempt(lambda: open(context.bundle / "new", "w")),
            "root": attempt(lambda: open("/etc/new", "w")),
            "temporary": attempt(lambda: open(f"{tmp}/new", "w")),
            "quota": attempt(quota),
            "network": attempt(lambda: socket.create_connection(("127.0.0.1", input), 1)),
            "mount": attempt(mount),
            "session": os.getsid(0) == os.getpid(),
        }
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        return result | {"caps": status["CapEff"].strip(), "privileges": status["NoNewPrivs"], "filter": status["Seccomp"],
                         "secrets": [name for name in os.environ if "TOKEN" in name or "KEY" in name]}
"""


def test_workers_are_isolated(gateway):
    gateway.deploy("isolated", ISOLATION, "resources: {temporary: 16MiB}\n")
    result = gateway.call("isolated", gateway.admin[1]).json
    if os.getuid() == 0 and not gateway.admin_request("GET", "/v1/gateway").json["missingIsolation"]:
        assert result == {
            "bundle": "Read-only file system", "root": "Read-only file system", "temporary": "allowed",
            "quota": "File too large", "network": "Connection refused", "mount": "Operation not permitted",
            "session": True, "caps": "0000000000000000", "privileges": "1", "filter": "2", "secrets": [],
        }  # fmt: skip


def test_network_true_lets_a_worker_out(gateway):
    gateway.deploy("networked", ISOLATION, "network: true\n")
    assert gateway.call("networked", gateway.admin[1]).json["network"] == "allowed"


def test_memory_is_limited(gateway):
    gateway.deploy(
        "greedy",
        "class Model:\n    def predict(self, input, context):\n        return len(bytearray(input << 20))\n",
        "resources: {memory: 128MiB}\n",
    )
    assert gateway.call("greedy", 16).status == 200
    answer = gateway.call("greedy", 512)
    assert (answer.status, answer.json["error"]["message"]) == (500, "MemoryError")


def test_preload_that_fails_is_a_deploy_error(gateway):
    result = None
    try:
        gateway.deploy("preload", spec="python: {preload: [not_installed_here]}\n")
    except AssertionError as error:
        result = str(error)
    assert result and "not_installed_here" in result
    assert gateway.call("preload").code == "function_not_found"


def test_threads_left_by_a_preload_fall_back_to_spawn(gateway):
    # `concurrent.futures` alone starts nothing; a module of ours cannot be preloaded, so the standard library must do.
    gateway.deploy("plain", spec="python: {preload: [json, concurrent.futures]}\n")
    assert gateway.call("plain").start == "zygote"


def test_keys_guard_the_data_plane():
    gateway = Gateway(keys=["a-key-of-sixteen-letters"])
    try:
        gateway.deploy(
            "guarded",
            "class Model:\n    def predict(self, input, context):\n        return context.headers.get('authorization')\n",
        )
        assert gateway.call("guarded").status == 401
        assert gateway.call("guarded", Authorization="Bearer wrong").code == "unauthorized"
        answer = gateway.call("guarded", Authorization="Bearer a-key-of-sixteen-letters")
        assert (answer.status, answer.json) == (200, None), "the key stays with the gateway"
    finally:
        gateway.close()


def test_a_worker_cannot_see_the_gateways_own_files(gateway):
    gateway.deploy(
        "curious",
        "import os\nclass Model:\n    def predict(self, input, context):\n        found = {}\n"
        "        for root, _, names in os.walk(input):\n            for name in names:\n"
        "                found[os.path.relpath(os.path.join(root, name), input)] = 1\n        return sorted(found)\n",
    )
    seen = gateway.call("curious", gateway.data).json
    missing = gateway.admin_request("GET", "/v1/gateway").json["missingIsolation"]
    if "read-only-file-system" not in missing:
        assert {os.path.basename(path) for path in seen} == {"handler.py", "function.yaml"}, seen


def test_numbers_from_a_worker_are_not_believed(gateway):
    gateway.deploy(
        "liar",
        "import os\nclass Model:\n    def load(self, context):\n"
        '        os.write(3, b\'{"type":"progress","fraction":1e308}\\n\')\n'
        '        os.write(3, b\'{"type":"ready","load_seconds":1e308}\\n\')\n'
        "        os.write(3, b'nonsense\\n')\n    def predict(self, input, context):\n        return 1\n",
    )
    assert gateway.call("liar").status == 200
    assert gateway.call("liar").status == 200


def test_a_client_that_stops_reading_does_not_keep_its_slot(gateway):
    gateway.deploy(
        "flood",
        "class Model:\n    def predict(self, input, context):\n        return (b'x' * 65536 for _ in range(10000))\n",
        "scaling: {max-workers: 1}\ntimeouts: {request-timeout: 1s}\n",
    )
    import socket

    with socket.create_connection(gateway.address) as connection:
        connection.sendall(b"POST /functions/flood HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        assert connection.recv(10)
        gateway.wait_for(lambda: [row["state"] for row in gateway.workers()] == ["idle"], "the slot", timeout=20)


ASYNCHRONOUS = """
import asyncio

class Model:
    async def predict(self, input, context):
        try:
            await asyncio.sleep(input)
            print("slept to the end")
        except asyncio.CancelledError:
            print("stopped early")
            raise
        return "done"
"""


@pytest.mark.parametrize("slots", [1, 2])
def test_an_asynchronous_function_is_cancelled_where_it_awaits(gateway, slots):
    gateway.deploy(
        "waits", ASYNCHRONOUS, f"scaling: {{max-concurrency: {slots}}}\ntimeouts: {{request-timeout: 300ms}}\n"
    )
    assert gateway.call("waits", 0).json == "done"
    assert gateway.call("waits", 3).code == "request_deadline"
    gateway.wait_for(lambda: "stopped early" in gateway.functions_log("waits"), "the cancellation")
    assert gateway.call("waits", 0).json == "done"
    assert gateway.call("waits", 0).start == "hot"


def test_a_program_that_refuses_every_connection_is_told_of(gateway):
    server = (
        "import os, socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(os.environ['HEARTH_SOCKET'])\ns.listen()\n"
        "s.accept()\ns.close()\ntime.sleep(1000)\n"
    )
    gateway.deploy("refuses", spec="command: [python3, server.py]\n", files={"server.py": server})
    answer = gateway.request("/functions/refuses", timeout=60)
    assert (answer.status, answer.code) == (503, "load_failed")
    assert "took no request" in answer.json["error"]["message"]


def test_a_request_during_a_back_off_is_served_when_it_ends(gateway):
    gateway.deploy(
        "flaky",
        "import os\nclass Model:\n    def load(self, context):\n        if context.config['fails']:\n"
        "            raise OSError('not yet')\n    def predict(self, input, context):\n        return 1\n",
        "config: {fails: true}\ntimeouts: {cold-start-timeout: 20s}\n",
    )
    began = time.monotonic()
    assert gateway.call("flaky", timeout=30).code == "load_failed"
    assert time.monotonic() - began < 10 * PATIENCE
