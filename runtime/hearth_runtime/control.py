"""Control messages: one JSON object a line over a Unix stream socket, descriptors by SCM_RIGHTS.

See docs/worker-protocol.md; `tests/golden` holds one example of each message.
"""

import json
import socket
import threading
from typing import Any, Protocol

#: 1 MiB: the longest line either side accepts.
LENGTH_MAX = 1 << 20
#: Descriptors one read may bring: the most that one message carries, for several messages in a row.
DESCRIPTORS_MAX = 32

Message = dict[str, Any]


class Control(Protocol):
    """Where reports to the gateway go."""

    def send(self, message: Message) -> None:
        """Sends one message whole, from any thread. Raises OSError when the other side is gone."""


class ControlSocket:
    """A control socket: `receive` blocks, `send` may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._buffer = b""
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def send(self, message: Message) -> None:
        """Sends one message whole. Raises OSError when the other side is gone."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            self._connection.sendall(line)

    def receive(self) -> Message | None:
        """The next message, waiting for it; None when the other side is gone or does not keep to the protocol."""
        while True:
            message = self.buffered()
            if message is not None:
                return message
            if not self.read():
                return None

    def read(self) -> bool:
        """Reads what has arrived, waiting for at least a byte; False at the end."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._connection, 65536, DESCRIPTORS_MAX)
        except OSError:
            return False
        self._descriptors.extend(descriptors)
        self._buffer += data
        return bool(data) and len(self._buffer) <= LENGTH_MAX

    def buffered(self) -> Message | None:
        """The next message that has arrived whole; None when there is none."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        message = json.loads(line)
        return message if isinstance(message, dict) else {}

    def take_descriptors(self, count: int) -> list[int]:
        """The descriptors of the message just received, in the order they were sent."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken


class ModelControl:
    """The reports of one model in a process that many share: each names the worker it is of."""

    def __init__(self, control: Control, worker: str) -> None:
        self._control = control
        self._worker = worker

    def send(self, message: Message) -> None:
        self._control.send({**message, "worker": self._worker})
