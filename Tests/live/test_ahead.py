"""Requests sent ahead of the one a worker has: every answer to its own client, every request served once."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time
from collections import Counter

import h2.events
from gateway import PATIENCE, Gateway
from test_protocols import H2Client
from test_trouble import head, rss

MIXED = """
import time
class Model:
    def predict(self, input, context):
        if context.path == "/stream":
            return self.stream()
        if context.path == "/slow":
            time.sleep(0.004)
            raise ValueError("no")
        if context.path == "/large":
            print("BEGUN", context.request_id, flush=True)
            return b"x" * input
        return {"input": input}
    def stream(self):
        yield "one"
        time.sleep(0.012)
        raise ValueError("no more")
"""


def warm(gateway, name, count=200):
    """Calls until the gateway has learned that requests are short."""
    with socket.create_connection(gateway.address, timeout=10 * PATIENCE) as client:
        for _ in range(count):
            client.sendall(head(name, 1) + b"1")
            read(client)


def read(client):
    """Status and body of one answer with a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(65536)
        assert part, "the connection ended"
        received += part
    fields, _, body = received.partition(b"\r\n\r\n")
    length = int(fields.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += client.recv(65536)
    return int(fields[9:12]), body


def test_streams_that_fail_among_short_requests_mix_up_no_answers(gateway):
    gateway.deploy("mix", MIXED, "scaling: {max-workers: 2, min-workers: 2}\n")
    warm(gateway, "mix")
    ends = time.monotonic() + 4 * PATIENCE
    wrong, answered = [], Counter()

    def client(number):
        with socket.create_connection(gateway.address, timeout=10 * PATIENCE) as connection:
            for turn in range(1_000_000):
                if time.monotonic() > ends:
                    return
                mine = json.dumps(f"{number}-{turn}").encode()
                connection.sendall(head("mix", len(mine)) + mine)
                status, body = read(connection)
                answered[status] += 1
                if status != 200 or json.loads(body)["input"] != f"{number}-{turn}":
                    wrong.append((status, body))

    def failing():
        while time.monotonic() < ends:
            with socket.create_connection(gateway.address, timeout=10 * PATIENCE) as connection:
                connection.sendall(b"GET /functions/mix/stream HTTP/1.1\r\nHost: h\r\n\r\n")
                with contextlib.suppress(OSError):
                    while connection.recv(65536):
                        pass
            time.sleep(0.02)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(client, number) for number in range(6)] + [pool.submit(failing)]
        for future in running:
            future.result()
    assert not wrong and answered[200] > 100


def test_a_failed_head_request_leaves_those_behind_it(gateway):
    gateway.deploy("heads", MIXED, "scaling: {max-workers: 1}\n")
    for _ in range(4):
        warm(gateway, "heads", 100)
        with (
            socket.create_connection(gateway.address, timeout=10 * PATIENCE) as first,
            socket.create_connection(gateway.address, timeout=10 * PATIENCE) as second,
        ):
            first.sendall(b"HEAD /functions/heads/slow HTTP/1.1\r\nHost: h\r\n\r\n")
            second.sendall(head("heads", 3) + b'"X"')
            assert read(second) == (200, b'{"input":"X"}')
            assert first.recv(65536).startswith(b"HTTP/1.1 500")


def test_streams_of_one_slow_reader_are_each_served_once(gateway):
    gateway.deploy("reader", MIXED, "scaling: {max-workers: 1}\n")
    rounds = 8
    for size in (20_000, 150_000) * (rounds // 2):
        warm(gateway, "reader", 60)
        client = H2Client(gateway.address, window=2**31 - 1)
        streams = [
            client.send("/functions/reader/large", str(size).encode(), fields=[("content-type", "application/json")])
            for _ in range(10)
        ]
        time.sleep(0.01)
        ended = set()
        while len(ended) < len(streams):
            events = client.receive()
            assert events is not None, "the connection ended"
            ended |= {e.stream_id for e in events if isinstance(e, h2.events.StreamEnded | h2.events.StreamReset)}
        assert all(client.answer(stream)[0] == 200 for stream in streams)
        client.close()
    begun = Counter(line.split("BEGUN ")[1] for line in gateway.functions_log("reader").splitlines() if "BEGUN" in line)
    assert len(begun) == 10 * rounds and set(begun.values()) == {1}, begun


def test_a_body_waits_for_a_worker_that_does_not_read(gateway):
    stubborn = (
        "import os, socket, time\nserver = socket.socket(socket.AF_UNIX)\nserver.bind(os.environ['HEARTH_SOCKET'])\n"
        "server.listen(8)\nkept = []\nwhile True:\n    kept.append(server.accept()[0])\n"
    )
    gateway.deploy("stubborn", spec="command: [python3, server.py]\n", files={"server.py": stubborn})
    size = 90 * 1024 * 1024
    with socket.create_connection(gateway.address, timeout=2 * PATIENCE) as client:
        client.sendall(head("stubborn", size))
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += client.send(b"x" * 65536)
        assert sent < 24 * 1024 * 1024, f"{sent >> 20} MiB were taken"
        assert rss(gateway.process.pid) < 200 * 1024 * 1024 * PATIENCE


def test_an_http2_connection_is_not_idle_while_a_request_runs():
    gateway = Gateway(idle_connection_timeout="1s")
    try:
        sleeper = "import time\nclass Model:\n    def predict(self, input, context):\n        time.sleep(input)\n"
        gateway.deploy("steady", sleeper)
        client = H2Client(gateway.address)
        json_type = [("content-type", "application/json")]
        assert client.answer(client.send("/functions/steady", b"2.5", fields=json_type))[0] == 200
        for _ in range(6):
            assert client.answer(client.send("/functions/steady", b"0.3", fields=json_type))[0] == 200
        began = time.monotonic()
        while client.receive():
            pass
        assert 0.5 < time.monotonic() - began < 3 * PATIENCE, "an idle one is ended"
        client.close()
    finally:
        gateway.close()


def test_a_client_that_resets_is_not_counted_any_more():
    gateway = Gateway(requests_per_client_max=2)
    try:
        sleeper = "import time\nclass Model:\n    def predict(self, input, context):\n        time.sleep(input)\n"
        gateway.deploy("counted", sleeper, "scaling: {max-workers: 3}\n")
        gateway.call("counted", 0)
        for _ in range(2):
            client = socket.create_connection(gateway.address)
            client.sendall(head("counted", 2) + b"30")
            threading.Event().wait(0.2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.close()
        began = time.monotonic()
        gateway.wait_for(lambda: gateway.call("counted", 0).status == 200, "a place")
        assert time.monotonic() - began < 2 * PATIENCE
    finally:
        gateway.close()
