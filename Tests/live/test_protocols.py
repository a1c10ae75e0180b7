"""TLS, HTTP/2, switched protocols and progress: the same functions by other ways."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from gateway import PATIENCE, Gateway

STREAM = """
import time
class Model:
    def predict(self, input, context):
        if context.path == "/stream":
            return (f"{number}\\n" for number in range(100_000))
        if context.path == "/fail":
            return self.fail()
        if context.path == "/sleep":
            time.sleep(input)
        return {"method": context.method, "path": context.path, "headers": context.headers, "input": input}
    def fail(self):
        yield "one"
        raise ValueError("no more")
"""


class H2Client:
    """One HTTP/2 connection, by the library `h2`, which checks what it receives."""

    def __init__(self, address, context=None, window=None):
        self.socket = socket.create_connection(address, timeout=20 * PATIENCE)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
            self.h2.increment_flow_control_window(window - 65535)
        self.events = []
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def send(self, path, body=b"", method="POST", fields=(), end=True, authority="h"):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority), *fields]
        self.h2.send_headers(stream, head, end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def receive(self):
        """Reads once and returns the new events; none when the connection has ended."""
        data = self.socket.recv(65536)
        if not data:
            return None
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        self.events += events
        return events

    def answer(self, stream):
        """Status, fields and body of a stream; the body is None when the stream was reset."""
        while True:
            own = [event for event in self.events if getattr(event, "stream_id", None) == stream]
            ended = [e for e in own if isinstance(e, h2.events.StreamEnded | h2.events.StreamReset)]
            if ended:
                break
            assert self.receive() is not None, "the connection ended"
        head = next((e.headers for e in own if isinstance(e, h2.events.ResponseReceived)), [])
        fields = {str(name): str(value) for name, value in head}
        body = b"".join(e.data for e in own if isinstance(e, h2.events.DataReceived))
        return int(fields.get(":status", 0)), fields, None if isinstance(ended[-1], h2.events.StreamReset) else body

    def close(self):
        self.socket.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_http2_by_prior_knowledge(shared):
    shared.deploy("two", STREAM)
    client = H2Client(shared.address)
    stream = client.send(
        "/functions/two/a?b=c",
        b'{"x": 1}',
        fields=[("content-type", "application/json"), ("hearth-forged", "1"), ("cookie", "a=1"), ("cookie", "b=2")],
    )
    status, fields, body = client.answer(stream)
    seen = json.loads(body)
    assert (status, seen["method"], seen["path"], seen["input"]) == (200, "POST", "/a", {"x": 1})
    assert fields["hearth-request-id"] and "server-timing" in fields and "connection" not in fields
    assert seen["headers"]["cookie"] == "a=1; b=2"
    assert "hearth-forged" not in seen["headers"] and seen["headers"]["host"] == "h"
    # A body of unknown length, in pieces, larger than every window.
    stream = client.send("/functions/two", method="POST", end=False, fields=[("content-type", "text/plain")])
    for number in range(40):
        while client.h2.local_flow_control_window(stream) < 16_000:
            client.receive()
        client.h2.send_data(stream, b"x" * 16_000, end_stream=number == 39)
        client.flush()
    assert len(json.loads(client.answer(stream)[2])["input"]) == 640_000
    client.close()


def test_http2_streams_side_by_side_and_errors_of_one_leave_the_others(shared):
    shared.deploy("side", STREAM, "scaling: {max-workers: 2}\n")
    client = H2Client(shared.address)
    slow = client.send("/functions/side/sleep", b"0.5", fields=[("content-type", "application/json")])
    failing = client.send("/functions/side/fail", method="GET")
    missing = client.send("/functions/nothing", method="GET")
    status, _, body = client.answer(missing)
    assert (status, json.loads(body)["error"]["code"]) == (404, "function_not_found")
    status, _, body = client.answer(failing)
    assert (status, body) == (200, None), "a response that fails midway is reset, not ended"
    streaming = client.send("/functions/side/stream", method="GET")
    assert client.answer(streaming)[2].endswith(b"99999\n")
    status, _, body = client.answer(client.send("/functions/side", method="HEAD"))
    assert (status, body) == (200, b"")
    assert client.answer(slow)[0] == 200
    client.close()


@pytest.mark.parametrize(
    "fields",
    [[("host", "other")], [("x-a", "a\rb")], [("x-a", "a\x00b")], [("x y", "1")], [("transfer-encoding", "chunked")]],
)
def test_http2_has_the_same_rules(shared, fields):
    shared.deploy("rules")
    client = H2Client(shared.address)
    # What the library would not send, on purpose.
    client.h2.config.validate_outbound_headers = False
    client.h2.config.normalize_outbound_headers = False
    stream = client.send("/functions/rules", method="GET", fields=fields)
    try:
        status, _, body = client.answer(stream)
        assert body is None or (status == 400 and json.loads(body)["error"]["code"] == "request_malformed")
    except (AssertionError, OSError) as error:
        assert "ended" in str(error) or isinstance(error, OSError)
    client.close()
    assert shared.call("rules").status == 200


def test_http2_client_that_resets_its_stream_stops_the_work(shared):
    shared.deploy("reset2", STREAM, "scaling: {max-workers: 1}\n")
    client = H2Client(shared.address)
    stream = client.send("/functions/reset2/sleep", b"30", fields=[("content-type", "application/json")])
    shared.wait_for(lambda: [w for w in shared.workers() if w["function"] == "reset2" and w["state"] == "busy"], "busy")
    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    shared.wait_for(lambda: [w for w in shared.workers() if w["function"] == "reset2" and w["state"] == "idle"], "idle")
    assert client.answer(client.send("/functions/reset2", method="GET"))[0] == 200
    client.close()


def test_http2_floods_end_the_connection_and_nothing_else(shared):
    shared.deploy("flood")
    shared.call("flood")
    for flood in ("resets", "pings", "settings"):
        client = H2Client(shared.address)
        try:
            for _ in range(20_000):
                if flood == "resets":
                    stream = client.send("/functions/flood", method="GET")
                    client.h2.reset_stream(stream)
                elif flood == "pings":
                    client.h2.ping(b"12345678")
                else:
                    client.h2.update_settings({})
                client.flush()
            client.socket.settimeout(5 * PATIENCE)
            while client.receive():
                pass
        except TimeoutError:
            pytest.fail(f"a flood of {flood} was not ended")
        except (OSError, h2.exceptions.ProtocolError):
            pass
        client.close()
        assert shared.call("flood").status == 200, flood


def test_tls_serves_both_protocols(certificate):
    gateway = Gateway(tls_certificate=str(certificate / "cert.pem"), tls_key=str(certificate / "key.pem"))
    try:
        gateway.deploy("safe", STREAM)
        context = ssl.create_default_context(cafile=certificate / "cert.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = H2Client(gateway.address, context)
        assert client.socket.selected_alpn_protocol() == "h2"
        assert client.answer(client.send("/functions/safe", method="GET"))[0] == 200
        client.close()
        context.set_alpn_protocols(["http/1.1"])
        with (
            socket.create_connection(gateway.address) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /functions/safe/stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            received = b""
            while part := secure.recv(65536):
                received += part
        assert received.startswith(b"HTTP/1.1 200 OK") and received.endswith(b"0\r\n\r\n")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), socket.create_connection(gateway.address) as plain:
            old.wrap_socket(plain)
        # Cleartext on a port of TLS gets no answer, and harms nobody.
        assert b"200 OK" not in gateway.raw(b"GET /functions/safe HTTP/1.1\r\nHost: h\r\n\r\n", timeout=2)
        answer = gateway.cli("call", "safe")
        assert '"method"' in answer.stdout
    finally:
        gateway.close()


def test_half_a_tls_configuration_is_refused(certificate):
    with pytest.raises(AssertionError, match="tls-certificate"):
        Gateway(tls_certificate=str(certificate / "cert.pem"))
    with pytest.raises(AssertionError, match="cannot be used"):
        Gateway(tls_certificate=str(certificate / "key.pem"), tls_key=str(certificate / "cert.pem"))


WEBSOCKET = """
import base64, hashlib, os, socket, socketserver, threading

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        fields = {}
        line = self.rfile.readline()
        while (field := self.rfile.readline().strip()):
            name, _, value = field.decode().partition(":")
            fields[name.lower()] = value.strip()
        if fields.get("upgrade") != "websocket":
            body = b"no upgrade"
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
            return
        key = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(f"HTTP/1.1 101 Switching Protocols\\r\\nupgrade: websocket\\r\\nconnection: upgrade\\r\\n"
                         f"sec-websocket-accept: {accept}\\r\\n\\r\\nhello".encode())
        while data := self.connection.recv(65536):
            self.wfile.write(data.upper())

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(os.environ["HEARTH_SOCKET"], Handler).serve_forever()
"""


def test_a_program_may_switch_protocols(shared):
    shared.deploy(
        "ws", spec="command: [python3, server.py]\nscaling: {max-workers: 1}\n", files={"server.py": WEBSOCKET}
    )
    key = base64.b64encode(b"0123456789abcdef").decode()
    head = (
        "GET /functions/ws/chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(shared.address, timeout=10 * PATIENCE) as client:
        # Bytes right behind the head belong to the new protocol.
        client.sendall(head.encode() + b"early ")
        received = b""
        while b"EARLY " not in received:
            received += client.recv(65536)
        answer, _, rest = received.partition(b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert answer.startswith(b"HTTP/1.1 101 ") and accept in answer
        assert b"\r\nconnection: upgrade" in answer and b"\r\nupgrade: websocket" in answer
        assert rest == b"helloEARLY "
        data = b"x" * 1_000_000
        threading.Thread(target=client.sendall, args=(data,)).start()
        count = 0
        while count < len(data):
            count += len(client.recv(65536))
        assert [w["state"] for w in shared.workers() if w["function"] == "ws"] == ["busy"]
    shared.wait_for(lambda: [w["state"] for w in shared.workers() if w["function"] == "ws"] == ["idle"], "a free slot")
    assert shared.call("ws").body == b"no upgrade"


def test_a_handler_does_not_hear_of_an_upgrade(shared):
    shared.deploy("stay", STREAM)
    answer = shared.request("/functions/stay", fields={"Connection": "upgrade", "Upgrade": "websocket"})
    assert answer.status == 200 and "upgrade" not in answer.json["headers"]


def events_of(body):
    found = []
    for block in body.decode().strip().split("\n\n"):
        name = re.search(r"^event: (.*)$", block, re.M)
        data = "\n".join(re.findall(r"^data: (.*)$", block, re.M))
        found.append((name[1] if name else None, json.loads(data) if data else None))
    return found


LOADS = """
import time
class Model:
    def load(self, context):
        for step in range(8):
            context.progress(step / 8, "weights")
            time.sleep(0.2)
    def predict(self, input, context):
        if context.path == "/separator":
            return {"a": "x\\u2028y"}
        if context.path == "/events":
            from hearth_runtime import Response
            return Response((f"data: {n}\\n\\n" for n in range(3)), content_type="text/event-stream")
        if context.path == "/bytes":
            return b"\\x00\\xff"
        if context.path == "/raise":
            raise ValueError("no")
        return {"input": input}
"""


def test_progress_of_a_cold_start(gateway):
    gateway.deploy("cold", LOADS, "scaling: {keep-alive: 0s, max-workers: 1}\n")
    plain = gateway.call("cold", 1)
    assert plain.json == {"input": 1}, "without asking there is silence"
    for field in ({"Accept": "text/event-stream"}, {"Prefer": "progress"}):
        gateway.wait_for(lambda: not gateway.workers(), "zero workers")
        answer = gateway.call("cold", 2, **field)
        events = events_of(answer.body)
        assert answer.status == 200 and answer.fields["content-type"] == "text/event-stream"
        assert {name for name, _ in events[:-1]} == {"progress"} and events[-1][0] == "answer"
        assert events[-1][1] == {"status": 200, "content-type": "application/json", "body": {"input": 2}}
        fractions = [data["fraction"] for name, data in events if name == "progress" and "fraction" in data]
        assert fractions and fractions == sorted(fractions) and fractions[-1] > 0
        assert any(data.get("note") == "weights" and data["state"] == "loading" for _, data in events[:-1])
        assert all(0 <= data["eta"] < 10 * PATIENCE for name, data in events if name == "progress"), "learned"
    gateway.wait_for(lambda: not gateway.workers(), "zero workers")
    own = gateway.request("/functions/cold/events", fields={"Accept": "text/event-stream"}).body
    assert own.endswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\n") and own.startswith(b"event: progress\n")
    gateway.wait_for(lambda: not gateway.workers(), "zero workers")
    name, data = events_of(gateway.request("/functions/cold/bytes", fields={"Prefer": "progress"}).body)[-1]
    assert (name, base64.b64decode(data["base64"])) == ("answer", b"\x00\xff")
    gateway.wait_for(lambda: not gateway.workers(), "zero workers")
    name, data = events_of(gateway.request("/functions/cold/separator", fields={"Prefer": "progress"}).body)[-1]
    assert (name, data["body"]) == ("answer", {"a": "x\u2028y"})
    gateway.wait_for(lambda: not gateway.workers(), "zero workers")
    name, data = events_of(gateway.request("/functions/cold/raise", fields={"Prefer": "progress"}).body)[-1]
    assert (name, data["status"], data["body"]["error"]["code"]) == ("answer", 500, "function_exception")


def test_progress_that_ends_in_an_error(gateway):
    gateway.deploy(
        "stuck",
        "import time\nclass Model:\n    def load(self, context):\n        time.sleep(60)\n"
        "    def predict(self, input, context):\n        return 1\n",
        "timeouts: {cold-start-timeout: 1s}\n",
    )
    answer = gateway.call("stuck", Prefer="progress")
    events = events_of(answer.body)
    assert events[-1][0] == "error" and events[-1][1]["error"]["code"] == "cold_start_timeout"


def test_progress_of_a_queue(gateway):
    gateway.deploy("row", STREAM, "scaling: {max-workers: 1}\n")
    gateway.request("/functions/row/sleep", b"0.6")
    threads = [threading.Thread(target=gateway.request, args=("/functions/row/sleep", b"0.6")) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    answer = gateway.request("/functions/row/sleep", b"0", fields={"Prefer": "progress"})
    events = events_of(answer.body)
    positions = [data["position"] for name, data in events if name == "progress"]
    assert positions[0] >= 1 and positions == sorted(positions, reverse=True)
    assert all(data["state"] == "queued" and data["eta"] > 0 for name, data in events if name == "progress")
    for thread in threads:
        thread.join()


def test_http2_clients_that_send_too_slowly_are_told_and_hold_up_no_other_stream():
    gateway = Gateway(body_timeout="1s")
    try:
        gateway.deploy("slow", STREAM)
        gateway.call("slow")
        client = H2Client(gateway.address)
        fields = [("content-type", "application/json"), ("content-length", "100000")]
        silent = client.send("/functions/slow", b"12", fields=fields, end=False)
        trickle = client.send("/functions/slow", b"12", fields=fields, end=False)
        began = time.monotonic()
        ended = False
        while not ended and time.monotonic() - began < 10 * PATIENCE:
            # 20 bytes a second, and 500 are asked for.
            client.h2.send_data(trickle, b"1")
            client.flush()
            time.sleep(0.05)
            client.socket.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                client.receive()
            client.socket.settimeout(20 * PATIENCE)
            responses = {e.stream_id for e in client.events if isinstance(e, h2.events.ResponseReceived)}
            ended = {silent, trickle} <= responses
        for stream in (silent, trickle):
            status, _, body = client.answer(stream)
            assert status == 408 and json.loads(body)["error"]["code"] == "request_timeout"
        other = client.send("/functions/slow", b"1", fields=[("content-type", "application/json")])
        assert client.answer(other)[0] == 200
        client.close()
    finally:
        gateway.close()
