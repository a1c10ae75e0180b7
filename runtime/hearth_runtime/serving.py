"""Takes requests off the data connections, as many at a time as the worker has slots."""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

from hearth_runtime import logs
from hearth_runtime.connection import Connection, ConnectionEnded
from hearth_runtime.context import Cancelled, Context
from hearth_runtime.control import ControlSocket
from hearth_runtime.function import Function
from hearth_runtime.payload import InputError, encode_chunk, encode_result, parse_input


class Running:
    """One request that a thread serves: what cancelling needs to find it."""

    __slots__ = ("context", "is_open", "thread")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.thread = threading.get_ident()
        #: Whether the author's code runs, so that an exception may be raised in it.
        self.is_open = True


class Server:
    """The worker's main loop and its control thread."""

    def __init__(self, function: Function, control: ControlSocket, slots: int) -> None:
        self._function = function
        self._control = control
        self._slots = slots
        self._epoll = select.epoll()
        # With one thread an event needs no arming; with more, each connection's event goes to one of them.
        self._events = select.EPOLLIN if slots == 1 else select.EPOLLIN | select.EPOLLONESHOT
        self._connections: dict[int, Connection] = {}
        self._running: dict[str, Running] = {}
        #: The last cancels that found no request: one may be on its way in.
        self._early_cancels: deque[str] = deque(maxlen=64)
        self._lock = threading.Lock()
        self._main_thread = threading.get_ident()

    def run(self) -> None:
        """Serves until the gateway drains this worker or is gone. Never returns."""
        signal.signal(signal.SIGUSR1, self._interrupted)
        threading.Thread(target=self._obey, name="control", daemon=True).start()
        for number in range(1, self._slots):
            threading.Thread(target=self._serve, name=f"slot-{number}", daemon=True).start()
        self._serve()

    # The control thread.

    def _obey(self) -> None:
        while (message := self._control.receive()) is not None:
            kind = message.get("type")
            if kind == "connect":
                for descriptor in self._control.take_descriptors(1):
                    self._add(Connection(socket.socket(fileno=descriptor)))
            elif kind == "cancel":
                self._cancel(message.get("request", ""))
            elif kind == "drain":
                self._drain()
        os._exit(0)

    def _add(self, connection: Connection) -> None:
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection, self._events)

    def _cancel(self, request: str) -> None:
        with self._lock:
            running = self._running.get(request)
            if running is None:
                # The request is still being read, or was answered already.
                self._early_cancels.append(request)
                return
            if not running.is_open:
                return
            running.context.cancel()
            if self._function.cancel_task(running.thread):
                return
            if running.thread == self._main_thread:
                # A signal also ends a sleep or a read that the main thread is in.
                signal.pthread_kill(running.thread, signal.SIGUSR1)
            else:
                _raise_in(running.thread, Cancelled)

    def _interrupted(self, *_: Any) -> None:
        """SIGUSR1, in the main thread: raises Cancelled if the request that runs there was cancelled."""
        for running in list(self._running.values()):
            if running.thread == self._main_thread and running.is_open and running.context.cancelled:
                running.is_open = False
                raise Cancelled

    def _drain(self) -> None:
        while self._running:
            time.sleep(0.001)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    # The serving threads.

    def _serve(self) -> None:
        while True:
            serving = -1
            try:
                for descriptor, _ in self._epoll.poll(maxevents=1):
                    serving = descriptor
                    if not self._answer(self._connections[descriptor]):
                        self._drop(descriptor)
                    elif self._slots > 1:
                        self._epoll.modify(descriptor, self._events)
                    serving = -1
            except Cancelled:
                # Arrived just after its request had ended: what the client got of it is not known.
                if serving in self._connections:
                    self._drop(serving)

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._connections.pop(descriptor).close()

    def _answer(self, connection: Connection) -> bool:
        """One request; False when the connection is to be closed."""
        try:
            method, target, fields = connection.read_head()
            body = connection.read_body(fields)
        except (ConnectionEnded, OSError, ValueError):
            return False
        context = self._function.context.for_request(method, target, fields)
        running = Running(context)
        logs.set_request(context.request_id)
        with self._lock:
            self._running[context.request_id] = running
            is_cancelled = context.request_id in self._early_cancels
        try:
            if is_cancelled:
                context.cancel()
                return self._failed(connection, running, Cancelled(), has_begun=False)
            return self._respond(connection, running, fields.get("content-type", ""), body)
        except (OSError, ConnectionEnded):
            return False
        finally:
            self._close(running)
            self._running.pop(context.request_id, None)
            sys.stdout.flush()
            sys.stderr.flush()
            logs.set_request("")

    def _respond(self, connection: Connection, running: Running, content_type: str, body: bytes) -> bool:
        has_begun = False
        chunks: Iterator[Any] | None = None
        try:
            result = self._function.predict(parse_input(content_type, body), running.context)
            status, kind, fields, payload = encode_result(result)
            if running.context.method == "HEAD" or status in (204, 304):
                # Bytes behind a head that has no body would be taken for the next response.
                chunks = None if isinstance(payload, bytes) else self._function.chunks(payload)
                self._close(running)
                connection.send_head(status, kind, fields)
                return True
            if isinstance(payload, bytes):
                self._close(running)
                connection.send(status, kind, fields, payload)
                return True
            chunks = self._function.chunks(payload)
            first = next(chunks, b"")
            has_begun = True
            connection.begin_stream(status, kind, fields)
            connection.send_chunk(encode_chunk(first))
            for chunk in chunks:
                connection.send_chunk(encode_chunk(chunk))
            self._close(running)
            connection.end_stream()
            return True
        except InputError as error:
            self._send_error(connection, running.context, 400, "function_input", str(error))
            return True
        except OSError as error:
            if has_begun and not connection_is_alive(connection):
                return False
            return self._failed(connection, running, error, has_begun)
        except BaseException as error:
            return self._failed(connection, running, error, has_begun)
        finally:
            self._close(running)
            close = getattr(chunks, "close", None)
            if close is not None:
                try:
                    close()
                except BaseException:
                    # The author's generator objects to its end; the response is out already.
                    traceback.print_exc()

    def _failed(self, connection: Connection, running: Running, error: BaseException, has_begun: bool) -> bool:
        """Logs an exception and tells the client, or cuts the response short when it has begun."""
        self._close(running)
        if isinstance(error, Cancelled):
            print("cancelled: the client left or the deadline passed", file=sys.stderr)
        else:
            traceback.print_exc()
        if has_begun:
            return False
        self._send_error(connection, running.context, 500, "function_exception", self._function.describe(error))
        return True

    def _send_error(self, connection: Connection, context: Context, status: int, code: str, message: str) -> None:
        envelope = {
            "code": code,
            "message": message,
            "hint": "See the function's log: hearth logs NAME." if status == 500 else None,
            "request": context.request_id,
            "source": "function",
        }
        connection.send(status, "application/json", {}, json.dumps({"error": envelope}).encode())

    def _close(self, running: Running) -> None:
        """From here on no exception may be raised into the thread that serves this request."""
        with self._lock:
            if running.is_open:
                running.is_open = False
                if running.thread != self._main_thread:
                    _raise_in(running.thread, None)


def connection_is_alive(connection: Connection) -> bool:
    """Whether the gateway still holds its end of a data connection."""
    try:
        return connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Sets or clears the exception that the thread raises at its next step of Python code."""
    value = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
