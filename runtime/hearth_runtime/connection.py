"""The data contract's server side: HTTP/1.1 on a socket, one request at a time, blocking.

The gateway is the only client; it sends canonical heads, so this reader is short and still refuses what it does not
understand by ending the connection.
"""

import socket
from collections.abc import Iterable

#: 64 KiB: what the gateway lets a head have, doubled.
HEAD_MAX = 128 * 1024
#: 256 KiB a read: few system calls for large bodies.
READ_SIZE = 256 * 1024

REASONS = {200: "OK", 400: "Bad Request", 500: "Internal Server Error"}


class ConnectionEnded(Exception):
    """The other side closed the connection between requests or within one."""


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

    def read_head(self) -> tuple[str, str, dict[str, str]]:
        """Method, target and fields by lower-case name. Raises ConnectionEnded."""
        end = self._buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(self._buffer) > HEAD_MAX:
                raise ConnectionEnded
            self._more()
            end = self._buffer.find(b"\r\n\r\n")
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        try:
            method, target, _ = lines[0].split(" ")
            fields = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
        except ValueError:
            raise ConnectionEnded from None
        return method, target, fields

    def read_body(self, fields: dict[str, str]) -> bytes:
        """The body, whole. Raises ConnectionEnded."""
        length = fields.get("content-length")
        if length is not None:
            return self._take(int(length))
        if fields.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        return b""

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

    def send(self, status: int, content_type: str, fields: dict[str, str], body: bytes) -> None:
        """A whole response in one write."""
        head = _head(status, content_type, fields, f"content-length: {len(body)}")
        if len(body) < READ_SIZE:
            self.socket.sendall(head + body)
        else:
            self.socket.sendall(head)
            self.socket.sendall(body)

    def send_head(self, status: int, content_type: str, fields: dict[str, str]) -> None:
        """A response that has no body: to HEAD, or with a status that excludes one."""
        self.socket.sendall(_head(status, content_type, fields, ""))

    def begin_stream(self, status: int, content_type: str, fields: dict[str, str]) -> None:
        self.socket.sendall(_head(status, content_type, fields, "transfer-encoding: chunked"))

    def send_chunk(self, chunk: bytes) -> None:
        if chunk:
            self.socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def end_stream(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")


#: Fields that delimit a message: the runtime writes them itself.
_FRAMING = {"content-length", "transfer-encoding", "connection", "content-type"}


def _head(status: int, content_type: str, fields: dict[str, str], framing: str) -> bytes:
    own = (f"{name}: {value}\r\n" for name, value in fields.items() if name.lower() not in _FRAMING)
    extra = "".join(own) if fields else ""
    reason = REASONS.get(status, "Status")
    delimiter = f"{framing}\r\n" if framing else ""
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{extra}{delimiter}\r\n"
    return head.encode("latin-1", "replace")
