"""The data contract's server side."""

import socket
import threading

import pytest
from hearth_runtime.connection import Connection, ConnectionEnded, fields_of


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, Connection(theirs)
    ours.close()
    theirs.close()


def test_requests_one_after_another(pair):
    client, connection = pair
    client.sendall(b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nX-A:  v \r\n\r\n")
    request = connection.read()
    assert (request.method, request.target, request.body) == ("POST", "/a?b", b"hi")
    assert connection.has_more
    request = connection.read()
    assert (request.method, fields_of(request.head)["x-a"], request.body) == ("GET", "v", b"")
    assert not connection.has_more


def test_the_fields_that_the_runtime_needs(pair):
    client, connection = pair
    client.sendall(
        b"POST / HTTP/1.1\r\nCONTENT-type: text/plain; charset=x \r\nX-Content-Length: 9\r\ncontent-length: 0\r\n"
        b"hearth-request-id: r-1\r\nhearth-timeout-ms: 250\r\n\r\n"
    )
    request = connection.read()
    assert request.copy == "r-1"
    assert (request.id, request.timeout_ms, request.content_type) == ("r-1", 250, "text/plain; charset=x")
    assert request.body == b""


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_bodies_in_pieces(pair, step):
    client, connection = pair
    body = bytes(range(256)) * 40
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:])) + b"0\r\n\r\n"

    def send():
        for start in range(0, len(data), step):
            client.sendall(data[start : start + step])

    thread = threading.Thread(target=send)
    thread.start()
    assert connection.read().body == body
    thread.join()


def test_an_end_is_told(pair):
    client, connection = pair
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhal")
    client.close()
    with pytest.raises(ConnectionEnded):
        connection.read()


def test_responses(pair):
    client, connection = pair
    connection.send("r-1", 200, "text/plain", {"X-A": "1"}, b"hi")
    connection.begin_stream("r-1", 200, "text/plain", {})
    connection.send_chunk(b"ab")
    connection.send_chunk(b"")
    connection.end_stream()
    connection.close()
    received = b""
    while part := client.recv(4096):
        received += part
    whole, _, streamed = received.partition(b"hi")
    head = b"HTTP/1.1 200 OK\r\nhearth-request-id: r-1\r\ncontent-type: text/plain\r\nX-A: 1\r\n"
    assert whole == head + b"content-length: 2\r\n\r\n"
    assert streamed.endswith(b"\r\n\r\n2\r\nab\r\n0\r\n\r\n")
