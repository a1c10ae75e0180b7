"""A function's prints and log records, each line marked with the request it belongs to.

A line on standard output reads RS request US text LF. The gateway takes the mark off and writes time, worker and
request in front; lines without a mark, from C code or child processes, are logged without a request.
"""

import io
import logging
import os
import sys
import threading

_current = threading.local()

RECORD = "\x1e"
UNIT = "\x1f"


def set_request(request_id: str) -> None:
    """Names the request that the calling thread serves; empty between requests."""
    _current.request = request_id


class MarkedStream(io.TextIOBase):
    """Line-buffered text to a descriptor, each line marked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = threading.local()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def write(self, text: str, /) -> int:
        pending = getattr(self._pending, "text", "") + text
        *lines, rest = pending.split("\n")
        for line in lines:
            self._emit(line)
        self._pending.text = rest
        return len(text)

    def flush(self) -> None:
        rest = getattr(self._pending, "text", "")
        if rest:
            self._pending.text = ""
            self._emit(rest)

    def _emit(self, line: str) -> None:
        request = getattr(_current, "request", "")
        data = f"{RECORD}{request}{UNIT}{line}\n".encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]


def install() -> None:
    """Routes sys.stdout, sys.stderr and logging through marked streams."""
    sys.stdout = MarkedStream(1)
    sys.stderr = MarkedStream(2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
