"""Calls of one function by another, through the gateway."""

import json
import os
import socket
import time
from contextlib import suppress
from typing import Any

#: 0.1 s: by how much a call outlasts the request that it is for. That one's end comes first, and ends the call: the
#: other way round the author's code would see an error that is only its own deadline, rounded.
SLACK = 0.1


class CallError(Exception):
    """A call that another function, or the gateway, answered with an error.

    Attributes:
        status: the HTTP status.
        code: the error's code, as docs/errors.md lists them; empty when the answer names none.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Call:
    """One call of another function.

    Args:
        function: the name, and what follows it in the path: `embed`, `translate/models/en-pt`.
        deadline: until when it must be answered, on `time.monotonic()`; None: as long as it takes.
    """

    def __init__(self, function: str, deadline: float | None) -> None:
        self._function = function
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def abort(self) -> None:
        """Ends it from another thread; `send` raises OSError then."""
        self._is_aborted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, body: bytes, content_type: str, fields: dict[str, str]) -> Any:
        """Returns what was answered. Raises CallError or OSError."""
        # What most functions never need is not worth the time of every cold start.
        import http.client
        import ssl
        import urllib.parse

        address = os.environ.get("HEARTH_GATEWAY")
        if address is None:
            raise OSError("this worker knows of no gateway: add 'network: true' to function.yaml")
        gateway = urllib.parse.urlsplit(address)
        timeout = None
        fields = {**fields, "Content-Type": content_type}
        if self._deadline is not None:
            timeout = max(0.0, self._deadline - time.monotonic()) + SLACK
            fields["Hearth-Deadline"] = f"{int(timeout * 1000)}ms"
        host, port = gateway.hostname or "", gateway.port
        connection: http.client.HTTPConnection
        if gateway.scheme == "https":
            # The gateway on this machine, whatever name its certificate has.
            unverified = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=unverified)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.connect()
            self._socket = connection.sock
            if self._is_aborted:
                raise OSError("the call was aborted")
            path = urllib.parse.quote(self._function, safe="/?=&%")
            connection.request("POST", f"/functions/{path}", body, fields)
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{self._function} gave no whole answer: {error!r}") from None
        finally:
            self._socket = None
            connection.close()
        if answer.status >= 400:
            raise _error(answer.status, self._function, content)
        return self._decoded(answer.status, answer.headers.get_content_type(), content)

    def _decoded(self, status: int, kind: str, content: bytes) -> Any:
        try:
            if kind == "application/json" or kind.endswith("+json"):
                return json.loads(content) if content else None
            return content.decode() if kind.startswith("text/") else content
        except (ValueError, RecursionError):
            raise CallError(status, "", f"{self._function} answered with what is not {kind}") from None


def _error(status: int, function: str, content: bytes) -> CallError:
    try:
        error = json.loads(content)["error"]
        return CallError(status, error["code"], f"{function}: {error['message']}")
    except (ValueError, KeyError, TypeError):
        return CallError(status, "", f"{function} answered with status {status}")


def encode(value: Any) -> tuple[bytes, str]:
    """A value as a request's body, and its content type."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    return json.dumps(value).encode(), "application/json"
