"""Calling functions: what goes in, what comes out, what is refused."""

import http.client
import json
import select
import socket
import time

import pytest
from gateway import ECHO, PATIENCE


def test_first_call_is_from_the_zygote_and_the_next_hot(shared):
    shared.deploy("starts")
    first = shared.call("starts", {"a": 1})
    assert (first.status, first.json["input"], first.start) == (200, {"a": 1}, "zygote")
    second = shared.call("starts", [1, "ü", None])
    assert (second.json["input"], second.start) == ([1, "ü", None], "hot")
    assert first.fields["hearth-request-id"] != second.fields["hearth-request-id"]
    parts = dict(part.strip().split(";dur=") for part in first.fields["server-timing"].split(","))
    assert set(parts) == {"queue", "fetch", "spawn", "load", "exec"}
    assert float(parts["spawn"]) > 0


def test_spawned_function_starts_cold(shared):
    shared.deploy("spawned", spec="python: {start: spawn}\n")
    assert shared.call("spawned", 1).start == "cold"
    assert shared.call("spawned", 1).start == "hot"


KINDS = """
from hearth_runtime import Response

class Model:
    def predict(self, input, context):
        kind = context.path.strip("/")
        if kind == "bytes":
            return b"\\x00\\x01"
        if kind == "type":
            return Response(b"<b>", content_type="text/html", status=201, headers={"X-Own": "1"})
        if kind == "text":
            return Response("grüße")
        if kind == "stream":
            return (f"part {i}\\n" for i in range(3))
        if kind == "none":
            return None
        if kind == "kind":
            return type(input).__name__
        if kind == "form":
            return {name: [value.filename, value.content_type, len(value.data)] if hasattr(value, "data") else value
                    for name, value in input.items()}
        if kind == "where":
            return {"method": context.method, "path": context.path, "query": context.query,
                    "agent": context.headers.get("user-agent"), "forged": context.headers.get("hearth-forged")}
        return {"input": input}
"""


def test_results_of_every_kind(shared):
    shared.deploy("kinds", KINDS)
    answer = shared.request("/functions/kinds/bytes")
    assert (answer.body, answer.fields["content-type"]) == (b"\x00\x01", "application/octet-stream")
    answer = shared.request("/functions/kinds/type")
    assert (answer.status, answer.fields["content-type"], answer.fields["x-own"]) == (201, "text/html", "1")
    answer = shared.request("/functions/kinds/text")
    assert answer.body.decode() == "grüße"
    answer = shared.request("/functions/kinds/stream")
    assert answer.body == b"part 0\npart 1\npart 2\n"
    assert answer.fields["transfer-encoding"] == "chunked"
    assert shared.request("/functions/kinds/none").body == b"null"


def test_inputs_of_every_kind(shared):
    shared.deploy("kinds", KINDS)

    def kind(body, content_type):
        return shared.request("/functions/kinds/kind", body, fields={"Content-Type": content_type}).json

    assert kind(b'{"a": 1}', "application/json") == "dict"
    assert kind(b"[1]", "application/vnd.api+json; charset=utf-8") == "list"
    assert kind(b"\xff\xd8", "image/jpeg") == "bytes"
    assert kind("ü".encode(), "text/plain") == "str"
    assert kind(b"", "application/json") == "NoneType"
    assert kind(b'{"curl": "-d"}', "application/x-www-form-urlencoded") == "dict"
    boundary = "xyz"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\nlion\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n\x00\x01\x02\r\n--{boundary}--\r\n"
    ).encode()
    answer = shared.request(
        "/functions/kinds/form", body, fields={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert answer.json == {"title": "lion", "picture": ["a.png", "image/png", 3]}


def test_input_that_is_not_what_it_says_is_a_400_of_the_function(shared):
    shared.deploy("kinds", KINDS)
    answer = shared.request("/functions/kinds", b"{not json")
    assert (answer.status, answer.code, answer.json["error"]["source"]) == (400, "function_input", "function")


def test_input_that_the_function_refuses_is_a_400_with_its_words(shared):
    shared.deploy(
        "picky",
        "from hearth_runtime import InputError\nclass Model:\n    def predict(self, input, context):\n"
        "        if input == 'later':\n            return self.stream()\n"
        "        raise InputError(f'send a word, not {input} as in {context.bundle}')\n"
        "    def stream(self):\n        yield 'first'\n        raise InputError('too late')\n",
    )
    answer = shared.call("picky", 7)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["source"]) == (400, "function_input", "function")
    assert error["message"] == "send a word, not 7 as in <bundle>"
    received = shared.raw(
        b"POST /functions/picky HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n"
        b'"later"'
    )
    assert b"first" in received and b"too late" not in received
    assert not received.endswith(b"0\r\n\r\n")
    assert shared.call("picky", 8).start == "hot"
    shared.wait_for(lambda: "too late" in shared.functions_log("picky"), "the traceback of the stream")
    assert shared.functions_log("picky").count("Traceback") == 1


def test_method_path_and_query_reach_the_function_and_forged_fields_do_not(shared):
    shared.deploy("kinds", KINDS)
    answer = shared.request(
        "/functions/kinds/where?a=1&b=2", None, method="GET", fields={"User-Agent": "t", "Hearth-Forged": "1"}
    )
    assert answer.json == {"method": "GET", "path": "/where", "query": "a=1&b=2", "agent": "t", "forged": None}


def test_head_has_no_body(shared):
    shared.deploy("kinds", KINDS)
    answer = shared.request("/functions/kinds/where", None, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


FAILING = """
import os

class Model:
    def predict(self, input, context):
        print("about to fail", input)
        if input == "file":
            open(os.path.join(context.bundle, "missing.txt"))
        if input == "stream":
            return self.stream()
        raise ValueError(f"cannot do {input}")

    def stream(self):
        yield "first\\n"
        raise RuntimeError("in the middle")
"""


def test_an_exception_is_a_500_with_type_and_text_and_the_log_has_the_traceback(shared):
    shared.deploy("failing", FAILING)
    answer = shared.call("failing", 7)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["message"]) == (500, "function_exception", "ValueError: cannot do 7")
    assert error["request"] == answer.fields["hearth-request-id"]
    shared.wait_for(lambda: "raise ValueError" in shared.functions_log("failing"), "the traceback in the log")
    line = next(line for line in shared.functions_log("failing").splitlines() if "about to fail 7" in line)
    assert line.split(" ")[2] == error["request"]
    assert shared.call("failing", 8).start == "hot", "an exception does not cost the worker"


def test_no_path_of_the_machine_reaches_the_client(shared):
    shared.deploy("failing", FAILING)
    message = shared.call("failing", "file").json["error"]["message"]
    assert "<bundle>/missing.txt" in message
    assert shared.data not in message


def test_a_stream_that_fails_is_cut_visibly(shared):
    shared.deploy("failing", FAILING)
    received = shared.raw(
        b"POST /functions/failing HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
        b'"stream"'
    )
    assert b"first" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert shared.call("failing", 1).json["error"]["code"] == "function_exception", "the worker lives on"


def test_a_function_that_does_not_exist_names_its_neighbour(shared):
    shared.deploy("kinds", KINDS)
    answer = shared.call("kindz")
    assert (answer.status, answer.code) == (404, "function_not_found")
    assert "kinds" in answer.json["error"]["hint"]
    assert shared.request("/nowhere").code == "route_not_found"


@pytest.mark.parametrize("body_size", [0, 1, 70_000, 3_000_000])
def test_bodies_of_every_size_come_back_whole(shared, body_size):
    shared.deploy("mirror", "class Model:\n    def predict(self, input, context):\n        return input or b''\n")
    body = bytes(i * 31 % 251 for i in range(1000)) * (body_size // 1000 + 1)
    body = body[:body_size]
    answer = shared.request("/functions/mirror", body, fields={"Content-Type": "application/octet-stream"})
    assert answer.body == body


def test_a_chunked_body_arrives_whole(shared):
    shared.deploy("mirror", "class Model:\n    def predict(self, input, context):\n        return input or b''\n")
    parts = [b"a" * 10, b"b" * 100_000, b"c"]
    answer = shared.request(
        "/functions/mirror",
        iter(parts),
        fields={"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"},
    )
    assert answer.body == b"".join(parts)


def test_chunks_arrive_as_they_are_yielded(shared):
    shared.deploy(
        "slow-stream",
        "import time\nclass Model:\n    def predict(self, input, context):\n        return self.parts()\n"
        "    def parts(self):\n        for i in range(5):\n            yield f'{i}\\n'\n            time.sleep(0.2)\n",
    )
    shared.call("slow-stream")
    connection = http.client.HTTPConnection(*shared.address)
    connection.request("POST", "/functions/slow-stream", b"{}")
    response = connection.getresponse()
    first = response.read1(10)
    began = time.monotonic()
    rest = response.read()
    assert first == b"0\n"
    assert rest == b"1\n2\n3\n4\n"
    assert time.monotonic() - began > 0.5, "the first chunk did not wait for the last"
    connection.close()


def test_pipelined_requests_are_answered_in_order(shared):
    shared.deploy("starts")
    one = b"POST /functions/starts/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Type: application/json\r\n%s\r\n{}"
    received = shared.raw(one % (1, b"") + one % (2, b"") + one % (3, b"Connection: close\r\n"))
    positions = [received.index(b'"/%d"' % number) for number in (1, 2, 3)]
    assert positions == sorted(positions)


def test_a_half_closed_client_still_gets_its_answer(shared):
    shared.deploy("starts")
    received = shared.raw(
        b"POST /functions/starts HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
        half_close=True,
    )
    assert received.startswith(b"HTTP/1.1 200")


def test_expect_continue(shared):
    shared.deploy("starts")
    received = shared.raw(
        b"POST /functions/starts HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\n\r\n{}"
    )
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST /functions/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /functions/starts HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /functions/starts HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /functions/starts HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_refused_has_a_status_an_envelope_and_an_end(shared, data, status):
    shared.deploy("starts")
    received = shared.raw(data)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["source"] == "gateway"


def test_a_command_function_serves_http_on_its_socket(shared):
    shared.deploy(
        "program",
        spec="command: [python3, server.py]\nresources: {temporary: 8MiB}\n",
        files={"server.py": COMMAND},
    )
    answer = shared.request("/functions/program/a/b?c=1", b"hello")
    assert (answer.status, answer.body, answer.start) == (200, b"POST /a/b?c=1 hello", "cold")
    assert shared.request("/functions/program/x", b"again").start == "hot"


COMMAND = """
import os, socketserver, http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = f"{self.command} {self.path} {body.decode()}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def address_string(self):
        return "gateway"

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

Server(os.environ["HEARTH_SOCKET"], Handler).serve_forever()
"""


LARGE = """
class Model:
    def predict(self, input, context):
        if context.path == "/stream":
            return (bytes([65 + i % 26]) * 65536 for i in range(160))
        return b"z" * (10 << 20)
"""


@pytest.mark.parametrize("path", ["/whole", "/stream"])
@pytest.mark.parametrize("persistence", [b"", pytest.param(b"Connection: close\r\n", marks=pytest.mark.repeats)])
@pytest.mark.parametrize("half_close", [False, pytest.param(True, marks=pytest.mark.repeats)])
def test_a_slow_reader_gets_everything_and_the_worker_serves_on(shared, path, persistence, half_close):
    shared.deploy("large", LARGE, "scaling: {max-workers: 1}\n")
    with socket.create_connection(shared.address, timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.sendall(
            b"POST /functions/large%s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n%s\r\n" % (path.encode(), persistence)
        )
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        time.sleep(2.0)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = b""
        while part := response.read1(1 << 20):
            body += part
            time.sleep(0.002)
    assert len(body) == 10 << 20
    for _ in range(3):
        assert len(shared.request(f"/functions/large{path}").body) == 10 << 20


def test_what_follows_a_head_is_never_taken_for_the_next_response(shared):
    shared.deploy(
        "forger",
        "class Model:\n    def predict(self, input, context):\n"
        "        forged = b'HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n\\r\\nowned'\n"
        "        if context.path == '/own':\n            return {'mine': input}\n"
        "        if context.path == '/stream':\n            return (forged for _ in range(3))\n"
        "        return forged + b'x' * 400_000\n",
        "scaling: {max-workers: 1}\n",
    )
    for number in range(40):
        for path in ("/whole", "/stream"):
            answer = shared.request(f"/functions/forger{path}", None, method="HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert shared.request("/functions/forger/own", b"%d" % number).json == {"mine": number}


def test_a_program_that_answers_head_with_a_body_harms_nobody(shared):
    server = COMMAND.replace("def do_POST", "def do_HEAD").replace(
        'body = self.rfile.read(int(self.headers["content-length"]))', 'body = b""'
    )
    server = server.replace(
        "    def address_string", "    def do_GET(self):\n        self.do_HEAD()\n    def address_string"
    )
    shared.deploy("heady", spec="command: [python3, server.py]\n", files={"server.py": server})
    for number in range(20):
        assert shared.request("/functions/heady", None, method="HEAD").body == b""
        answer = shared.request(f"/functions/heady/{number}", None, method="GET")
        assert answer.body == b"GET /%d " % number


def test_fields_of_an_author_cannot_break_out_of_the_head(shared):
    shared.deploy(
        "fields",
        "from hearth_runtime import Response\nclass Model:\n    def predict(self, input, context):\n"
        "        return Response(b'body', content_type=input.get('type'), headers=input.get('headers'))\n",
    )
    for value in ({"type": "a\r\nset-cookie: b"}, {"headers": {"a b": "1"}}, {"headers": {"a": "1\r\nb: 2"}}):
        assert shared.call("fields", value).code == "function_exception"
    answer = shared.call("fields", {"headers": {"Content-Length": "3", "Transfer-Encoding": "chunked", "X-Own": "1"}})
    assert (answer.status, answer.body, answer.fields["x-own"]) == (200, b"body", "1")


def test_a_pipelined_request_with_a_body_does_not_wait_for_the_next(shared):
    shared.deploy("threads", ECHO, "scaling: {max-concurrency: 4}\n")
    one = b"POST /functions/threads/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
    began = time.monotonic()
    with socket.create_connection(shared.address, timeout=20) as connection:
        for _ in range(20):
            connection.sendall(one % 1 + one % 2 + one % 3)
            received = b""
            while received.count(b'"path"') < 3:
                received += connection.recv(65536)
    assert time.monotonic() - began < 10 * PATIENCE


def test_pipelining_does_not_grow_memory(shared):
    def resident():
        with open(f"/proc/{shared.process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096

    # Long heads, so that hardly a read of the gateway ends where a request does, and its buffer is never quite empty.
    request = b"GET /functions/nobody HTTP/1.1\r\nHost: h\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n"
    stream = request * 2000
    with socket.create_connection(shared.address) as connection:
        before = resident()
        connection.setblocking(False)
        sent, received = 0, 0
        while sent < len(stream):
            readable, writable, _ = select.select([connection], [connection], [], 30)
            assert readable or writable, "the gateway takes nothing and gives nothing"
            if readable:
                received += len(connection.recv(1 << 20))
            if writable:
                sent += connection.send(stream[sent : sent + 13_517])
    assert received > 1900 * 300
    # A sanitizer keeps shadows of everything.
    assert resident() - before < (8 << 20) * PATIENCE
