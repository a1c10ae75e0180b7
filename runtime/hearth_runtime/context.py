"""What a function sees of its surroundings and of the request it serves."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hearth_runtime import calls
from hearth_runtime.connection import Request, fields_of

#: Held while the calls of a context change, which may come from several threads.
_calling = threading.Lock()


class Cancelled(BaseException):
    """Raised inside `predict` when the client has left or the deadline has passed.

    A BaseException, so that `except Exception` in a function does not swallow it. Clean up and let it go on.
    """


class Model:
    """Given to `load` of a function that has many models: the one to load.

    Attributes:
        name: as callers name it.
        path: the file or folder of its weights, read-only.
        bytes: the size of its files.
        device: where it is to be: "cpu", "cuda:0", or a simulated one such as "simulated:1".
    """

    __slots__ = ("bytes", "device", "name", "path")

    def __init__(self, name: str, path: Path, size: int, device: str = "cpu") -> None:
        self.name = name
        self.path = path
        self.bytes = size
        self.device = device


class Context:
    """Given to `load` (once) and to `predict` (a fresh one for each request).

    Attributes:
        bundle: the bundle's folder, read-only.
        device: where the function is to run: "cpu", "cuda:0", or a simulated one such as "simulated:1". A worker sees
            no GPU but its own, so that it is always the first.
        config: the mapping under `config:` in function.yaml.
        logger: writes to the function's log, with the request's id.
        request_id: the id the client got as Hearth-Request-Id; empty in `load`.
        method, path, query: of the request below the function's root, or the model's; path starts with "/".
        model: what the author's `load(model)` returned; None where the function is not one of many models.
        model_name: the model's name as callers know it; empty where the function is not one of many models.
    """

    __slots__ = (
        "_calls",
        "_cancelled",
        "_copy",
        "_deadline",
        "_head",
        "_headers",
        "_report",
        "bundle",
        "config",
        "device",
        "logger",
        "method",
        "model",
        "model_name",
        "path",
        "query",
        "request_id",
    )

    def __init__(
        self,
        bundle: Path,
        config: dict[str, Any],
        report: Callable[[float | None, str | None], None],
        device: str = "cpu",
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.config = config
        self.logger = logging.getLogger("function")
        self.request_id = ""
        self.method = ""
        self.path = ""
        self.query = ""
        self.model: Any = None
        self.model_name = ""
        self._copy = ""
        self._head = b""
        self._headers: dict[str, str] | None = None
        self._report = report
        self._deadline: float | None = None
        self._cancelled = False
        #: Calls of other functions that are under way.
        self._calls: frozenset[calls.Call] = frozenset()

    def for_request(self, request: Request) -> "Context":
        """A context for one request, sharing bundle, config and logger."""
        context = Context.__new__(Context)
        context.bundle = self.bundle
        context.device = self.device
        context.config = self.config
        context.logger = self.logger
        context.model = self.model
        context.model_name = self.model_name
        context._report = self._report
        context.request_id = request.id
        context._copy = request.copy
        context.method = request.method
        context.path, _, context.query = request.target.partition("?")
        context._head = request.head
        context._headers = None
        context._cancelled = False
        context._calls = self._calls
        context._deadline = None if request.timeout_ms is None else time.monotonic() + request.timeout_ms / 1000
        return context

    @property
    def headers(self) -> dict[str, str]:
        """The request's fields by lower-case name; empty in `load`."""
        if self._headers is None:
            self._headers = fields_of(self._head)
        return self._headers

    @property
    def deadline(self) -> float | None:
        """When the request must be answered, on `time.monotonic()`; None when there is no limit."""
        return self._deadline

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Marks the request as cancelled; called by the runtime."""
        self._cancelled = True
        for call in self._calls:
            call.abort()

    def call(self, function: str, value: Any, content_type: str | None = None, key: str | None = None) -> Any:
        """Calls another function through the gateway and returns its answer: JSON as Python values, text as str, all
        else as bytes. May be called from several threads at a time. The function needs `network: true`.

        The call has this request's deadline, and its place in a distributed trace.

        Args:
            function: its name, or its name and a path below it, such as `translate/models/en-pt`.
            value: bytes and text are sent as they are, all else as JSON.
            content_type: where the value's kind does not say it.
            key: the gateway's, if it asks for one.

        Raises:
            hearth_runtime.CallError: the answer is an error, or not what its content type says.
            OSError: there is no way to the gateway, no answer within the deadline, or half of one.
            hearth_runtime.Cancelled: nobody waits for this request's answer any more.
        """
        body, kind = calls.encode(value)
        fields = {"Authorization": f"Bearer {key}"} if key is not None else {}
        if "traceparent" in self.headers:
            fields["traceparent"] = self.headers["traceparent"]
        call = calls.Call(function, self._deadline)
        with _calling:
            self._calls |= {call}
        try:
            if self._cancelled:
                raise Cancelled
            return call.send(body, content_type or kind, fields)
        except OSError:
            if self._cancelled:
                raise Cancelled from None
            raise
        finally:
            with _calling:
                self._calls -= {call}

    def progress(self, fraction: float | None = None, note: str | None = None) -> None:
        """Tells the gateway that a load goes on, so that it is not taken for stalled.

        Args:
            fraction: from 0 to 1, where known.
            note: a few words for people.
        """
        self._report(fraction, note)


def config_of(text: str) -> dict[str, Any]:
    """The author's config from its JSON text."""
    value = json.loads(text)
    return value if isinstance(value, dict) else {}
