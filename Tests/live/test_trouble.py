"""Clients, workers and machines that misbehave: what holds under storms, garbage, kills and overload."""

import concurrent.futures
import contextlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from gateway import PATIENCE, Gateway

SLEEPER = """
import time
class Model:
    def predict(self, input, context):
        time.sleep(input or 0)
        return input
"""


def rss(pid):
    """Resident set of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def head(name, length, extra=""):
    return (
        f"POST /functions/{name} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


def states(gateway, name):
    return [worker["state"] for worker in gateway.workers() if worker["function"] == name]


def in_flight(gateway, name):
    return sum(worker["inFlight"] for worker in gateway.workers() if worker["function"] == name)


STREAMER = """
import time
class Model:
    def predict(self, input, context):
        if input == "stream":
            return self.stream()
        if input == "quick":
            return input
        time.sleep(20)
    def stream(self):
        while True:
            yield b"x" * 1000
            time.sleep(0.005)
"""


def test_five_hundred_clients_that_leave_at_random_points_cost_no_slot(gateway):
    gateway.deploy("storm", STREAMER, "scaling: {max-workers: 4, max-queue-length: 600}\n")
    gateway.call("storm", "quick")
    chance = random.Random(7)
    request = head("storm", 8) + b'"stream"'

    def leave(number):
        with socket.create_connection(gateway.address, timeout=10 * PATIENCE) as client:
            kind = number % 5
            if kind == 0:
                client.sendall(request[: chance.randrange(1, len(request))])
            elif kind == 1:
                client.sendall(head("storm", 6) + b'"long"')
            elif kind == 2:
                client.sendall(head("storm", 7) + b'"quick"')
            else:
                client.sendall(request)
                if kind == 3:
                    client.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):
                        client.recv(chance.randrange(1, 5000))
            time.sleep(chance.random() * 0.05)
            # A reset, as a process that dies leaves it.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(leave, range(500)))
    left = time.monotonic()
    gateway.wait_for(lambda: set(states(gateway, "storm")) <= {"idle"}, "idle workers")
    assert time.monotonic() - left < 0.5 * PATIENCE + 0.5
    assert in_flight(gateway, "storm") == 0
    # Every slot still serves.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda _: gateway.call("storm", "quick"), range(40))} == {200}


GIGABYTE = """
class Model:
    def predict(self, input, context):
        return (b"x" * 1_048_576 for _ in range(input))
"""


def test_a_slow_reader_of_a_gigabyte_costs_no_memory(gateway):
    gateway.deploy("large", GIGABYTE)
    gateway.call("large", 1)
    size = 1024
    with socket.create_connection(gateway.address, timeout=60 * PATIENCE) as client:
        client.sendall(head("large", len(str(size))) + str(size).encode())
        received = len(client.recv(65536))
        before = rss(gateway.process.pid)
        most = before
        while received < size * 1_048_576:
            # Slow enough that the worker is always ahead, and stopped now and then.
            if received % (64 * 1_048_576) < 1_048_576:
                time.sleep(0.05)
            got = len(client.recv(1_048_576))
            assert got > 0
            received += got
            most = max(most, rss(gateway.process.pid))
    slack = 16 if PATIENCE == 1 else 64
    assert most - before < slack * 1_048_576, f"{(most - before) / 1_048_576:.1f} MiB"


GARBAGE = """
import os, socket, threading, time
server = socket.socket(socket.AF_UNIX)
server.bind(os.environ["HEARTH_SOCKET"])
server.listen(64)

def serve(connection):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        part = connection.recv(65536)
        if not part:
            return
        data += part
    path = data.split(b" ")[1].decode()
    ok = b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok"
    if path == "/garbage":
        connection.sendall(b"\\x00\\xffthis is not HTTP\\r\\n\\r\\n")
    elif path == "/longer":
        connection.sendall(ok + b"and more than was promised")
    elif path == "/shorter":
        connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 100\\r\\n\\r\\nok")
    elif path == "/headers":
        connection.sendall(b"HTTP/1.1 200 OK\\r\\n")
        try:
            for _ in range(1_000_000):
                connection.sendall(b"x-filler: " + b"y" * 1000 + b"\\r\\n")
        except OSError:
            return
    elif path == "/chunks":
        connection.sendall(b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\nzz\\r\\n")
    elif path == "/both":
        connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\ntransfer-encoding: chunked\\r\\n\\r\\nok")
    elif path == "/switch":
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nupgrade: x\\r\\nconnection: upgrade\\r\\n\\r\\n")
    elif path == "/never":
        time.sleep(60)
    else:
        connection.sendall(ok)
        serve(connection)
        return
    time.sleep(0.2)
    connection.close()

while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/garbage", 502, "worker_bad_response"),
        ("/headers", 502, "worker_bad_response"),
        ("/both", 502, "worker_bad_response"),
        ("/switch", 502, "worker_bad_response"),
        ("/never", 504, "first_byte_timeout"),
        ("/longer", 200, None),
    ],
)
def test_a_worker_that_answers_wrongly_harms_one_request(shared, path, status, code):
    spec = (
        "command: [python3, server.py]\nscaling: {max-workers: 1, max-concurrency: 4}\n"
        "timeouts: {first-byte-timeout: 2s}\n"
    )
    shared.deploy("garbage", spec=spec, files={"server.py": GARBAGE})
    before = rss(shared.process.pid)
    answer = shared.request(f"/functions/garbage{path}")
    assert answer.status == status
    if code:
        assert answer.code == code
    else:
        assert answer.body == b"ok", "what is behind the promised length reaches nobody"
    assert rss(shared.process.pid) - before < 16 * 1_048_576 * PATIENCE
    for _ in range(4):
        assert shared.request("/functions/garbage").body == b"ok"


@pytest.mark.parametrize("path", ["/shorter", "/chunks"])
def test_a_response_that_breaks_off_is_cut_visibly(shared, path):
    spec = "command: [python3, server.py]\nscaling: {max-workers: 1, max-concurrency: 4}\n"
    shared.deploy("garbage", spec=spec, files={"server.py": GARBAGE})
    data = shared.raw(f"GET /functions/garbage{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    if b" 502 " in data.split(b"\r\n")[0]:
        return
    assert not data.endswith(b"0\r\n\r\n") and len(data.partition(b"\r\n\r\n")[2]) < 100
    assert shared.request("/functions/garbage").body == b"ok"


def under_kills(gateway, name, seconds, rate, threads=8):
    """Calls a function while a random worker of it is killed every 200 ms. Returns the statuses and the kills."""
    statuses = []
    ends = time.monotonic() + seconds
    kills = 0

    def call():
        found = []
        while time.monotonic() < ends:
            began = time.monotonic()
            found.append(gateway.call(name, 0.002).status)
            time.sleep(max(0, threads / rate - (time.monotonic() - began)))
        return found

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(call) for _ in range(threads)]
        while time.monotonic() < ends:
            time.sleep(0.2)
            pids = [w["pid"] for w in gateway.workers() if w["function"] == name and w.get("pid")]
            if pids:
                try:
                    os.kill(random.choice(pids), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
        for future in running:
            statuses += future.result()
    return statuses, kills


def test_kills_of_an_idempotent_functions_workers_fail_no_request(gateway):
    seconds = int(os.environ.get("HEARTH_KILL_SECONDS", "10"))
    gateway.deploy("twice", SLEEPER, "idempotent: true\nscaling: {max-workers: 4, max-queue-length: 1000}\n")
    gateway.call("twice", 0)
    statuses, kills = under_kills(gateway, "twice", seconds, rate=500 / PATIENCE)
    failed = [status for status in statuses if status != 200]
    assert not failed, f"{len(failed)} of {len(statuses)} failed under {kills} kills: {sorted(set(failed))}"
    assert kills >= seconds and len(statuses) > 50 * seconds / PATIENCE


def test_a_request_is_given_to_a_second_worker_only_where_that_is_allowed(gateway):
    dies = "import os\nclass Model:\n    def predict(self, input, context):\n        os.kill(os.getpid(), 9)\n"
    gateway.deploy("plain", dies)
    gateway.deploy("again", dies, "idempotent: true\n")
    for name, attempts in (("plain", 1), ("again", 2)):
        answer = gateway.call(name)
        assert (answer.status, answer.code) == (502, "worker_died")
        gateway.wait_for(
            lambda name=name, attempts=attempts: gateway.functions_log(name).count("SIGKILL") == attempts, "the log"
        )


def test_short_requests_do_not_wait_behind_a_long_one(gateway):
    gateway.deploy("mixed", SLEEPER, "scaling: {max-workers: 2}\n")
    for _ in range(50):
        gateway.call("mixed", 0)
    with concurrent.futures.ThreadPoolExecutor(21) as pool:
        long = pool.submit(gateway.call, "mixed", 3 * PATIENCE)
        gateway.wait_for(lambda: in_flight(gateway, "mixed") == 1, "the long one")
        began = time.monotonic()
        short = list(pool.map(lambda _: gateway.call("mixed", 0).status, range(20)))
        assert set(short) == {200} and time.monotonic() - began < 2 * PATIENCE
        assert long.result().status == 200


def test_requests_sent_ahead_survive_the_death_of_their_worker(gateway):
    handler = (
        "import os, time\nclass Model:\n    def predict(self, input, context):\n"
        "        if input == 'die':\n            os.kill(os.getpid(), 9)\n        return input\n"
    )
    gateway.deploy("ahead", handler, "scaling: {max-workers: 1}\n")
    for _ in range(200):
        gateway.call("ahead", 1)
    for _ in range(10):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            values = [pool.submit(gateway.call, "ahead", "die" if n == 4 else n) for n in range(16)]
            answers = [future.result() for future in values]
        assert sorted(answer.status for answer in answers) == [200] * 15 + [502]
        assert [a.json for n, a in enumerate(answers) if n != 4] == [n for n in range(16) if n != 4]


def test_deadlines(gateway):
    gateway.deploy("late", SLEEPER, "scaling: {max-workers: 1}\n")
    gateway.call("late", 0)
    began = time.monotonic()
    answer = gateway.call("late", 10, **{"Hearth-Deadline": "300ms"})
    assert (answer.status, answer.code) == (504, "request_deadline")
    assert 0.25 < time.monotonic() - began < 1 + PATIENCE
    gateway.wait_for(lambda: states(gateway, "late") == ["idle"], "the worker's slot")
    # In the queue as well, and without a trace in it.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        busy = pool.submit(gateway.call, "late", 1.5 * PATIENCE)
        gateway.wait_for(lambda: in_flight(gateway, "late") == 1, "a busy worker")
        waiting = pool.submit(gateway.call, "late", 0, **{"Hearth-Deadline": "200ms"})
        assert waiting.result().code == "request_deadline"
        assert busy.result().status == 200
    for value in ("soon", "-1s", "0s", "10", "1e9s"):
        answer = gateway.call("late", 0, **{"Hearth-Deadline": value})
        assert (answer.status, answer.code) == (400, "request_malformed"), value
    seen = "class Model:\n    def predict(self, input, context):\n        import time\n"
    seen += "        return context.deadline - time.monotonic()\n"
    gateway.deploy("seen", seen, "timeouts: {request-timeout: 5s}\n")
    assert 1 < gateway.call("seen", **{"Hearth-Deadline": "2s"}).json <= 2
    assert 4 < gateway.call("seen", **{"Hearth-Deadline": "1h"}).json <= 5


def test_slow_clients_are_told_and_hold_no_worker():
    gateway = Gateway(header_timeout="1s", body_timeout="1s")
    try:
        gateway.deploy("slow", SLEEPER)
        gateway.call("slow", 0)
        assert b" 408 " in gateway.raw(b"GET /functions/slow HTTP/1.1\r\nHost", timeout=10)
        silent = gateway.raw(head("slow", 100) + b"12", timeout=10)
        assert b" 408 " in silent and b"request_timeout" in silent
        with socket.create_connection(gateway.address, timeout=10 * PATIENCE) as client:
            client.sendall(head("slow", 10_000))
            began = time.monotonic()
            try:
                while time.monotonic() - began < 8 * PATIENCE:
                    client.sendall(b"1")
                    assert states(gateway, "slow") == ["idle"], "a body on its way takes no worker"
                    time.sleep(0.05)
            except OSError:
                pass
            assert time.monotonic() - began < 6 * PATIENCE, "a trickle is ended"
        # A large body that comes fast enough is none of this.
        assert gateway.call("slow", "x" * 5_000_000).status == 500
    finally:
        gateway.close()


def test_requests_in_flight_of_one_client_are_limited():
    gateway = Gateway(requests_per_client_max=2, keys=["first-key-0123456789", "second-key-0123456789"])
    try:
        gateway.deploy("share", SLEEPER, "scaling: {max-workers: 4}\n")
        first = {"Authorization": "Bearer first-key-0123456789"}
        second = {"Authorization": "Bearer second-key-0123456789"}
        gateway.call("share", 0, **first)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            busy = [pool.submit(gateway.call, "share", 1 * PATIENCE, **first) for _ in range(2)]
            gateway.wait_for(lambda: in_flight(gateway, "share") == 2, "two in flight")
            answer = gateway.call("share", 0, **first)
            assert (answer.status, answer.code) == (429, "client_busy") and answer.fields["retry-after"]
            assert gateway.call("share", 0, **second).status == 200
            assert [future.result().status for future in busy] == [200, 200]
        assert [gateway.call("share", 0, **first).status for _ in range(5)] == [200] * 5, "nothing stays counted"
    finally:
        gateway.close()


def test_overload_keeps_goodput_and_ends_with_it(gateway):
    """Ten times what the worker can do: what is served stays near the most, the rest is told at once."""
    gateway.deploy("over", SLEEPER, "scaling: {max-workers: 2, max-queue-length: 20}\n")
    gateway.call("over", 0)

    def offer(clients, seconds):
        ends = time.monotonic() + seconds
        served, refused, waits = 0, 0, []

        def client():
            nonlocal served, refused
            while time.monotonic() < ends:
                began = time.monotonic()
                answer = gateway.call("over", 0.05)
                if answer.status == 200:
                    served += 1
                else:
                    assert (answer.status, answer.code) == (503, "queue_full")
                    assert int(answer.fields["retry-after"]) >= 1
                    refused += 1
                    waits.append(time.monotonic() - began)
                    time.sleep(0.03)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return served / seconds, refused, sorted(waits)

    peak, _, _ = offer(clients=4, seconds=3)
    goodput, refused, waits = offer(clients=40, seconds=4)
    assert refused > 40 and goodput > 0.8 * peak, f"{goodput:.0f} of {peak:.0f} a second, {refused} refused"
    assert waits[len(waits) // 2] < 0.25 * PATIENCE, "a refusal does not wait"
    gateway.wait_for(lambda: in_flight(gateway, "over") == 0, "an empty queue", timeout=30)
    after, refused, _ = offer(clients=2, seconds=1)
    assert refused == 0 and after > 0


def test_ten_thousand_idle_connections(gateway):
    count = 10_000 if PATIENCE == 1 else 2_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.skip(f"this machine allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gateway.deploy("idle")
    gateway.call("idle")
    before = rss(gateway.process.pid)
    # The client's ports are bound to several loopback addresses, of which there are enough.
    clients = []
    try:
        for number in range(count - 100):
            clients.append(
                socket.create_connection(gateway.address, source_address=(f"127.0.0.{2 + number % 8}", 0), timeout=20)
            )
        request = b"GET /functions/idle HTTP/1.1\r\nHost: h\r\n\r\n"
        for client in clients[::100]:
            client.sendall(request)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert gateway.call("idle").status == 200
        busy = cpu_seconds(gateway.process.pid)
        time.sleep(1)
        assert cpu_seconds(gateway.process.pid) - busy < 0.3 * PATIENCE, "idle connections cost next to nothing"
        each = (rss(gateway.process.pid) - before) / count
        if PATIENCE == 1 and "release" in str(gateway.process.args[0]):
            assert each < 10 * 1024, f"{each / 1024:.1f} KiB for each"
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gateway.wait_for(lambda: gateway.call("idle").status == 200, "service as before")


def test_out_of_descriptors_the_gateway_serves_on_and_does_not_spin(gateway):
    gateway.deploy("few")
    gateway.call("few")
    used = len(os.listdir(f"/proc/{gateway.process.pid}/fd"))
    subprocess.run(["prlimit", f"--nofile={used + 40}:{used + 40}", "--pid", str(gateway.process.pid)], check=True)
    kept = socket.create_connection(gateway.address, timeout=10 * PATIENCE)
    request = b"GET /functions/few HTTP/1.1\r\nHost: h\r\n\r\n"
    kept.sendall(request)
    assert kept.recv(65536).startswith(b"HTTP/1.1 200")
    others = [socket.create_connection(gateway.address, timeout=10) for _ in range(120)]
    time.sleep(0.5)
    busy = cpu_seconds(gateway.process.pid)
    for _ in range(10):
        kept.sendall(request)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200"), "who has a connection is served"
        time.sleep(0.1)
    assert cpu_seconds(gateway.process.pid) - busy < 0.5 * PATIENCE, "an accept that fails is not tried without pause"
    for other in others:
        other.close()
    kept.close()
    gateway.wait_for(lambda: gateway.call("few").status == 200, "new connections")
