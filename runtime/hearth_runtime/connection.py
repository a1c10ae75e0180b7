"""The data contract's server side: HTTP/1.1 on a socket, one request at a time, blocking.

The gateway is the only client; it sends canonical heads, so this reader is short and still refuses what it does not
understand by ending the connection.
"""

import re
import socket
from collections.abc import Iterable

#: 64 KiB: what the gateway lets a head have, doubled.
HEAD_MAX = 128 * 1024
#: 256 KiB a read: few system calls for large bodies.
READ_SIZE = 256 * 1024

REASONS = {200: "OK", 400: "Bad Request", 500: "Internal Server Error"}

#: The fields that the runtime itself needs of every request. All others are read when the author's code asks for them.
_NEEDED = re.compile(
    rb"\r\n(content-length|content-type|transfer-encoding|hearth-request-id|hearth-attempt|hearth-timeout-ms)"
    rb":[ \t]*([^\r]*)",
    re.I,
)


class ConnectionEnded(Exception):
    """The other side closed the connection between requests or within one."""


class Request:
    """One request: its first line and body, what the runtime needs of its fields, and the head for the rest.

    Attributes:
        head: the head's bytes without the empty line.
        method, target: as sent.
        id: the request's id.
        copy: the id and which copy of the request this is, if it is not the first that the gateway has sent.
        content_type: as sent; empty when there is none.
        timeout_ms: how long the answer may take, in milliseconds; None when there is no limit.
        body: the body, whole.
    """

    __slots__ = ("body", "content_type", "copy", "head", "id", "method", "target", "timeout_ms")

    def __init__(self, head: bytes, method: str, target: str) -> None:
        self.head = head
        self.method = method
        self.target = target
        self.id = ""
        self.copy = ""
        self.content_type = ""
        self.timeout_ms: int | None = None
        self.body = b""


def fields_of(head: bytes) -> dict[str, str]:
    """A head's fields by lower-case name. Of a repeated field the last one counts."""
    fields = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return fields


class Connection:
    """One data connection."""

    __slots__ = ("_buffer", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    @property
    def has_more(self) -> bool:
        """Whether bytes of a further request have been read already."""
        return bool(self._buffer)

    def read(self) -> Request:
        """The next request, whole. Raises ConnectionEnded."""
        end = self._buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(self._buffer) > HEAD_MAX:
                raise ConnectionEnded
            self._more()
            end = self._buffer.find(b"\r\n\r\n")
        head = self._buffer[:end]
        self._buffer = self._buffer[end + 4 :]
        line, _, _ = head.partition(b"\r\n")
        try:
            method, target, _ = line.decode("latin-1").split(" ")
        except ValueError:
            raise ConnectionEnded from None
        request = Request(head, method, target)
        length = 0
        for written, value in _NEEDED.findall(head):
            name = written.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"content-type":
                request.content_type = value.decode("latin-1").rstrip()
            elif name == b"hearth-request-id":
                request.id = value.decode("latin-1")
            elif name == b"hearth-attempt":
                request.copy = value.decode("latin-1")
            elif name == b"hearth-timeout-ms":
                request.timeout_ms = int(value)
            else:
                length = -1
        request.copy = f"{request.id}/{request.copy}" if request.copy else request.id
        request.body = self._take(length) if length >= 0 else b"".join(self._chunks())
        return request

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._line().partition(b";")[0], 16):
            yield self._take(size)
            self._line()
        while self._line():
            pass

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_MAX:
                raise ConnectionEnded
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _take(self, count: int) -> bytes:
        if len(self._buffer) >= count:
            data, self._buffer = self._buffer[:count], self._buffer[count:]
            return data
        data_whole = bytearray(count)
        view = memoryview(data_whole)
        filled = len(self._buffer)
        view[:filled] = self._buffer
        self._buffer = b""
        while filled < count:
            got = self.socket.recv_into(view[filled:])
            if got == 0:
                raise ConnectionEnded
            filled += got
        return bytes(data_whole)

    def _more(self) -> None:
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise ConnectionEnded
        self._buffer += data

    def send(self, request: str, status: int, content_type: str, fields: dict[str, str], body: bytes) -> None:
        """A whole response to the request of this id in one write."""
        head = _head(request, status, content_type, fields, f"content-length: {len(body)}")
        if len(body) < READ_SIZE:
            self.socket.sendall(head + body)
        else:
            self.socket.sendall(head)
            self.socket.sendall(body)

    def send_head(self, request: str, status: int, content_type: str, fields: dict[str, str]) -> None:
        """A response that has no body: to HEAD, or with a status that excludes one."""
        self.socket.sendall(_head(request, status, content_type, fields, ""))

    def begin_stream(self, request: str, status: int, content_type: str, fields: dict[str, str]) -> None:
        self.socket.sendall(_head(request, status, content_type, fields, "transfer-encoding: chunked"))

    def send_chunk(self, chunk: bytes) -> None:
        if chunk:
            self.socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def end_stream(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")


#: Fields that delimit a message: the runtime writes them itself.
_FRAMING = {"content-length", "transfer-encoding", "connection", "content-type"}


def _head(request: str, status: int, content_type: str, fields: dict[str, str], framing: str) -> bytes:
    """A response head. It names the request first, so that the gateway can tell whose answer it is."""
    reason = REASONS.get(status, "Status")
    head = f"HTTP/1.1 {status} {reason}\r\nhearth-request-id: {request}\r\ncontent-type: {content_type}\r\n"
    for name, value in fields.items():
        if name.lower() not in _FRAMING:
            head += f"{name}: {value}\r\n"
    if framing:
        head += f"{framing}\r\n"
    return (head + "\r\n").encode("latin-1", "replace")
