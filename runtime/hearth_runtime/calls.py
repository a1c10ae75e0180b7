"""Calls of one function by another, through the gateway."""

import json
import os
import time
from typing import Any

#: 300 s: the least surprising end of a call that has no deadline.
TIMEOUT = 300.0


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


def call(
    function: str, body: bytes, content_type: str, fields: dict[str, str], deadline: float | None
) -> tuple[str, bytes]:
    """Content type and body of another function's answer. Raises CallError, or OSError where there is no gateway.

    Args:
        function: the name, and what follows it in the path: `embed`, `translate/models/en-pt`.
        deadline: until when it must be answered, on `time.monotonic()`.
    """
    # What most functions never need is not worth the time of every cold start.
    import http.client
    import ssl
    import urllib.parse

    address = os.environ.get("HEARTH_GATEWAY")
    if address is None:
        raise OSError("this worker cannot reach the gateway: add 'network: true' to function.yaml")
    gateway = urllib.parse.urlsplit(address)
    timeout = TIMEOUT if deadline is None else max(0.001, deadline - time.monotonic())
    fields = {**fields, "Content-Type": content_type, "Hearth-Deadline": f"{int(timeout * 1000)}ms"}
    connection: http.client.HTTPConnection
    if gateway.scheme == "https":
        # The gateway on this machine, whatever name its certificate has.
        connection = http.client.HTTPSConnection(
            gateway.hostname or "", gateway.port, timeout=timeout, context=ssl._create_unverified_context()
        )
    else:
        connection = http.client.HTTPConnection(gateway.hostname or "", gateway.port, timeout=timeout)
    try:
        connection.request("POST", f"/functions/{function}", body, fields)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 400:
        raise _error(answer.status, function, content)
    return answer.headers.get("Content-Type", ""), content


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
