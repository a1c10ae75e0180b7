"""The access log, and the ids of clients."""

import json
import os
import socket
from pathlib import Path

import pytest
from gateway import Gateway

STREAM = """
import time

class Model:
    def predict(self, input, context):
        if input == "fail":
            raise ValueError("no")
        if input == "trace":
            return dict(context.headers)
        if input == "stream":
            return self.parts()
        return "x" * 100

    def parts(self):
        for _ in range(200):
            yield b"part"
            time.sleep(0.05)
"""


@pytest.fixture
def logged():
    """A gateway with an access log."""
    running = Gateway()
    running.terminate()
    running.settings["access_log"] = f"{running.data}/access.log"
    running.start()
    running.deploy("fn", STREAM)
    yield running
    running.close()


def lines(gateway):
    path = Path(gateway.data, "access.log")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # Each event loop hands its lines over by itself, and two may come in one millisecond.
    return sorted(rows, key=lambda row: (row["time"], row["status"] == 400))


def test_each_request_is_one_line_that_says_what_became_of_it(logged):
    answer = logged.request("/functions/fn/below?secret=1", b'"hello"', fields={"X-Request-Id": "mine-1"})
    logged.call("fn", "fail")
    logged.call("nobody")
    logged.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    rows = logged.wait_for(lambda: len(lines(logged)) == 4 and lines(logged), "four lines")
    first = rows[0]
    assert first["request"] == answer.fields["hearth-request-id"] and first["client-request"] == "mine-1"
    assert (first["method"], first["path"], first["status"], first["end"]) == (
        "POST",
        "/functions/fn/below",
        200,
        "whole",
    )
    assert (first["in"], first["out"], first["start"]) == (7, len(answer.body), "zygote")
    assert first["version"] == answer.fields["hearth-version"] and first["client"] == "127.0.0.1"
    assert 0 < first["started"] < first["duration"] and first["time"].endswith("Z")
    assert rows[1]["status"] == 500 and rows[1]["start"] == "hot"
    assert (rows[2]["status"], rows[2]["code"]) == (404, "function_not_found")
    assert (rows[3]["status"], rows[3]["code"], rows[3]["method"]) == (400, "request_malformed", "")


def test_a_client_that_leaves_is_told_apart(logged):
    with socket.create_connection(logged.address) as connection:
        body = b'"stream"'
        connection.sendall(
            b"POST /functions/fn HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rows = logged.wait_for(lambda: lines(logged), "a line")
    assert rows[0]["end"] == "left" and rows[0]["status"] == 200


def test_a_renamed_log_is_followed_by_a_new_one(logged):
    logged.call("fn")
    logged.wait_for(lambda: len(lines(logged)) == 1, "a line")
    os.rename(f"{logged.data}/access.log", f"{logged.data}/access.log.1")
    logged.call("fn")
    logged.wait_for(lambda: len(lines(logged)) == 1, "a line in the new file")
    assert len(Path(logged.data, "access.log.1").read_text().splitlines()) == 1


def test_ids_of_clients_come_back_and_go_on_to_the_function(logged):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = logged.call("fn", "trace", **{"X-Request-Id": "mine-2", "traceparent": trace})
    assert answer.fields["x-request-id"] == "mine-2"
    assert answer.json["traceparent"] == trace and answer.json["x-request-id"] == "mine-2"
    refused = logged.call("nobody", **{"X-Request-Id": "mine-3"})
    assert refused.status == 404 and refused.fields["x-request-id"] == "mine-3"
    # What is no id is not given back.
    assert "x-request-id" not in logged.call("fn", **{"X-Request-Id": "a b"}).fields
    assert "x-request-id" not in logged.call("fn", **{"X-Request-Id": "a" * 200}).fields


def test_a_log_that_cannot_be_written_is_told_at_start(logged):
    logged.terminate()
    logged.settings["access_log"] = "/nowhere/access.log"
    with pytest.raises(AssertionError, match="cannot be written"):
        logged.start()
