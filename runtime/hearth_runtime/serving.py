"""Takes requests off the data connections, as many at a time as the worker has slots."""

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from hearth_runtime import logs
from hearth_runtime.batching import Batcher
from hearth_runtime.connection import Connection, ConnectionEnded
from hearth_runtime.context import Cancelled, Context
from hearth_runtime.control import Control, ControlSocket, Message
from hearth_runtime.function import Function
from hearth_runtime.interrupt import raise_in
from hearth_runtime.payload import InputError, encode_chunk, encode_result, parse_input


class Running:
    """One request that a thread serves: what cancelling needs to find it."""

    __slots__ = ("context", "is_open", "thread")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.thread = threading.get_ident()
        #: Whether the author's code runs, so that an exception may be raised in it.
        self.is_open = True


#: 32: how many requests in a row one connection gets before others are looked at.
RUN_MAX = 32
#: 4,096: copies of requests that were begun, kept so that a withdrawal that crossed its answer is not agreed to. The
#: gateway has at most a few requests ahead, so this covers a control thread that is late by a tenth of a second.
BEGUN_MAX = 4096
#: 1,024: copies that were given back and whose bytes may still come. Those of a connection that ended never do.
WITHDRAWN_MAX = 1024


class Server:
    """Serves one function, or one of its models, on as many threads as it has slots.

    `run` makes the main thread one of them and never returns; `live` makes its caller one of them until `stop`.
    """

    def __init__(self, function: Function, control: Control, slots: int) -> None:
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
        #: Copies begun, the last BEGUN_MAX of them, and those that the gateway has taken back before they were.
        self._begun: set[str] = set()
        self._begun_order: deque[str] = deque()
        self._withdrawn: dict[str, None] = {}
        self._lock = threading.Lock()
        #: The main thread if it serves, in which alone a signal can end what it is at.
        self._main_thread: int | None = None
        #: Readable once this server is to stop.
        self._wakeup = -1
        #: What to do around the author's code at the first request that it does not refuse.
        self.first: Callable[[], AbstractContextManager[None]] | None = None
        self._awaits_first = True
        #: Where requests are gathered; None where each is served by itself.
        self._batcher: Batcher | None = None

    def run(self, control: ControlSocket) -> None:
        """Serves until the gateway drains this worker or is gone. Never returns."""
        self._main_thread = threading.get_ident()
        signal.signal(signal.SIGUSR1, self._interrupted)
        threading.Thread(target=self._obey, args=(control,), name="control", daemon=True).start()
        self._start_others()
        self._serve()

    def live(self) -> None:
        """Serves until `stop`; what was begun is finished."""
        others = self._start_others()
        self._serve()
        for other in others:
            other.join()
        if self._batcher is not None:
            self._batcher.stop()

    def close(self) -> None:
        """Closes its connections and its own descriptors, once no thread of its serves any more."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._epoll.close()
        os.close(self._wakeup)

    def may_stop(self) -> None:
        """Readies `stop`. Call before `live`."""
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, select.EPOLLIN)

    def stop(self) -> None:
        """Ends `live`."""
        os.eventfd_write(self._wakeup, 1)

    def _start_others(self) -> list[threading.Thread]:
        if self._function.batching is not None:
            self._batcher = Batcher(self._function, *self._function.batching)
        others = [
            threading.Thread(target=self._serve, name=f"slot-{number}", daemon=True) for number in range(1, self._slots)
        ]
        for other in others:
            other.start()
        return others

    # The control thread.

    def _obey(self, control: ControlSocket) -> None:
        try:
            while (message := control.receive()) is not None:
                if message.get("type") == "drain":
                    self._drain()
                self.take(message, control)
        finally:
            # The gateway is gone, or cannot be understood: nobody is left to serve.
            os._exit(0)

    def take(self, message: Message, control: ControlSocket) -> None:
        """Obeys a message that concerns connections and requests."""
        kind = message.get("type")
        if kind == "connect":
            for descriptor in control.take_descriptors(1):
                self._add(Connection(socket.socket(fileno=descriptor)))
        elif kind == "cancel":
            self._cancel(message.get("request", ""))
        elif kind == "withdraw":
            self._withdraw(message.get("request", ""))

    def _add(self, connection: Connection) -> None:
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection, self._events)

    def _withdraw(self, copy: str) -> None:
        """Gives a copy of a request back that was sent ahead, unless it has been begun.

        The gateway may send another copy, which has a name of its own: to begin that one is no mistake.
        """
        with self._lock:
            if copy in self._begun:
                return
            self._withdrawn[copy] = None
            if len(self._withdrawn) > WITHDRAWN_MAX:
                del self._withdrawn[next(iter(self._withdrawn))]
        self._control.send({"type": "withdrawn", "request": copy})

    def _begin(self, running: Running) -> bool:
        """Notes that a request is begun; False when it was withdrawn. With the lock held."""
        copy = running.context._copy
        if self._withdrawn and copy in self._withdrawn:
            del self._withdrawn[copy]
            return False
        self._running[running.context.request_id] = running
        self._begun.add(copy)
        self._begun_order.append(copy)
        if len(self._begun_order) > BEGUN_MAX:
            self._begun.discard(self._begun_order.popleft())
        return True

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
            if self._batcher is not None and self._batcher.cancel(running.context):
                return
            if self._function.cancel_task(running.thread):
                return
            if running.thread == self._main_thread:
                # A signal also ends a sleep or a read that the main thread is in.
                signal.pthread_kill(running.thread, signal.SIGUSR1)
            else:
                raise_in(running.thread, Cancelled)

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
        # Connections of which bytes were read already: they raise no further event.
        ready: deque[int] = deque()
        while True:
            serving = -1
            try:
                for descriptor, _ in self._epoll.poll(0 if ready else -1, 1):
                    if descriptor == self._wakeup:
                        return self._function.end_thread()
                    if descriptor not in ready:
                        ready.append(descriptor)
                if not ready:
                    continue
                serving = ready.popleft()
                connection = self._connections[serving]
                if not self._answer_some(connection):
                    self._drop(serving)
                elif connection.has_more:
                    ready.append(serving)
                elif self._slots > 1:
                    self._epoll.modify(serving, self._events)
                serving = -1
            except Cancelled:
                # Arrived just after its request had ended: what the client got of it is not known.
                if serving in self._connections:
                    self._drop(serving)

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._connections.pop(descriptor).close()

    def _answer_some(self, connection: Connection) -> bool:
        """The requests that have arrived on a connection, in order; False when it is to be closed."""
        for _ in range(RUN_MAX):
            if not self._answer(connection):
                return False
            if not connection.has_more:
                break
        return True

    def _answer(self, connection: Connection) -> bool:
        """One request; False when the connection is to be closed."""
        try:
            request = connection.read()
        except (ConnectionEnded, OSError, ValueError):
            return False
        context = self._function.context.for_request(request)
        running = Running(context)
        logs.set_request(context.request_id)
        with self._lock:
            if not self._begin(running):
                return True
            is_cancelled = bool(self._early_cancels) and context.request_id in self._early_cancels
        try:
            if is_cancelled:
                context.cancel()
                return self._failed(connection, running, Cancelled(), has_begun=False)
            return self._respond(connection, running, request.content_type, request.body)
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
        measured: ExitStack | None = None
        try:
            measured = self._enter_first()
            predict = self._function.predict if self._batcher is None else self._batcher.predict
            result = predict(parse_input(content_type, body), running.context)
            status, kind, fields, payload = encode_result(result)
            if running.context.method == "HEAD" or status in (204, 304):
                # Bytes behind a head that has no body would be taken for the next response.
                chunks = None if isinstance(payload, bytes) else self._function.chunks(payload)
                self._close(running)
                connection.send_head(running.context.request_id, status, kind, fields)
                return True
            if isinstance(payload, bytes):
                if measured is not None:
                    measured.close()
                self._close(running)
                connection.send(running.context.request_id, status, kind, fields, payload)
                return True
            chunks = self._function.chunks(payload)
            first = next(chunks, b"")
            has_begun = True
            connection.begin_stream(running.context.request_id, status, kind, fields)
            connection.send_chunk(encode_chunk(first))
            for chunk in chunks:
                connection.send_chunk(encode_chunk(chunk))
            self._close(running)
            connection.end_stream()
            return True
        except InputError as error:
            if has_begun:
                return self._failed(connection, running, error, has_begun)
            self._close(running)
            self._awaits_first |= measured is not None
            message = self._function.without_paths(str(error))
            self._send_error(connection, running.context, 400, "function_input", message)
            return True
        except OSError as error:
            if has_begun and not connection_is_alive(connection):
                return False
            return self._failed(connection, running, error, has_begun)
        except BaseException as error:
            return self._failed(connection, running, error, has_begun)
        finally:
            self._close(running)
            if measured is not None:
                measured.close()
            close = getattr(chunks, "close", None)
            if close is not None:
                try:
                    close()
                except BaseException:
                    # The author's generator objects to its end; the response is out already.
                    traceback.print_exc()

    def _enter_first(self) -> ExitStack | None:
        """Enters what is to be around the first request, if this is it; close it when the author's code is done."""
        if self.first is None or not self._awaits_first:
            return None
        with self._lock:
            if not self._awaits_first:
                return None
            self._awaits_first = False
        stack = ExitStack()
        stack.enter_context(self.first())
        return stack

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
        if context.method == "HEAD":
            return connection.send_head(context.request_id, status, "application/json", {})
        connection.send(context.request_id, status, "application/json", {}, json.dumps({"error": envelope}).encode())

    def _close(self, running: Running) -> None:
        """From here on no exception may be raised into the thread that serves this request."""
        with self._lock:
            if running.is_open:
                running.is_open = False
                if running.thread != self._main_thread:
                    raise_in(running.thread, None)


def connection_is_alive(connection: Connection) -> bool:
    """Whether the gateway still holds its end of a data connection."""
    try:
        return connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
