"""Server-side batching: requests that wait at the same time go to the author's `predict_batch` together."""

import sys
import threading
import time
import traceback
from collections import deque
from typing import Any, Protocol

from hearth_runtime import logs
from hearth_runtime.context import Cancelled, Context
from hearth_runtime.interrupt import raise_in
from hearth_runtime.payload import InputError


class Predictor(Protocol):
    """What a batcher needs of the author's function."""

    def shape(self, value: Any) -> Any:
        """What is equal for inputs that may go into one batch."""

    def predict_batch(self, values: list[Any], contexts: list[Context]) -> list[Any]:
        """A result for each input, in their order; an exception stands for an input that failed."""

    def cancel_task(self, thread: int) -> bool:
        """Cancels what a thread's event loop runs; False when it runs nothing."""


class Item:
    """One request in the batcher."""

    __slots__ = ("arrival", "context", "done", "is_alone", "result", "shape", "value")

    def __init__(self, value: Any, context: Context, shape: Any) -> None:
        self.value = value
        self.context = context
        self.shape = shape
        self.arrival = time.monotonic()
        #: Whether it goes by itself, since a batch that it was in has failed.
        self.is_alone = False
        #: What came of it; an exception if it failed.
        self.result: Any = None
        #: Held until there is a result.
        self.done = threading.Lock()
        self.done.acquire()

    def goes_with(self, other: "Item") -> bool:
        """Whether both may be in one batch."""
        if self is other:
            return True
        try:
            return not self.is_alone and not other.is_alone and bool(self.shape == other.shape)
        except Exception:
            return False

    def finish(self, result: Any) -> None:
        """Wakes the thread of its request. The first result counts. With the batcher's lock held."""
        if self.done.locked():
            self.result = result
            self.done.release()


class Batcher:
    """Gathers requests and hands them on, a batch at a time, from a thread of its own.

    Args:
        function: whose `predict_batch` is called.
        size: the most requests in one batch.
        wait: how long the first of a batch waits for others, in seconds; 0 takes what is there already.
    """

    def __init__(self, function: Predictor, size: int, wait: float) -> None:
        self._function = function
        self._size = size
        self._wait = wait
        self._waiting: deque[Item] = deque()
        #: Those that the author's code is at.
        self._running: list[Item] = []
        # Entered as it is: a condition's own `__enter__` is Python code, in which an exception that another thread has
        # raised would leave it locked for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._serve, name="batches", daemon=True)
        self._thread.start()

    def predict(self, value: Any, context: Context) -> Any:
        """The result for one input. Waits for its batch; raises what went wrong with this input."""
        item = Item(value, context, self._function.shape(value))
        # One that cannot be compared is this request's error, not that of others.
        hash(item.shape)
        with self._lock:
            if context.cancelled:
                raise Cancelled
            self._waiting.append(item)
            self._changed.notify()
        item.done.acquire()
        if isinstance(item.result, BaseException):
            # Without the frames of those who got the same exception before.
            raise item.result.with_traceback(None)
        return item.result

    def cancel(self, context: Context) -> bool:
        """Ends the wait of a request that was marked as cancelled; False when it is not here (any more).

        A batch goes on for its other requests. The last one takes the author's code with it: Cancelled is raised there,
        and the request ends when that does.
        """
        with self._lock:
            for item in self._waiting:
                if item.context is context:
                    self._waiting.remove(item)
                    item.finish(Cancelled())
                    return True
            mine = next((item for item in self._running if item.context is context), None)
            if mine is None:
                return False
            if any(not item.context.cancelled for item in self._running):
                mine.finish(Cancelled())
            else:
                thread = self._thread.ident or 0
                if not self._function.cancel_task(thread):
                    raise_in(thread, Cancelled)
            return True

    def stop(self) -> None:
        """Ends its thread, once nothing waits any more."""
        with self._lock:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                if not self._gather():
                    return
                self._answer()
            except BaseException as error:
                # Cancelled comes a moment late when the batch that it was meant for has just ended.
                with self._lock:
                    for item in self._running:
                        item.finish(error)
                    self._running = []

    def _gather(self) -> bool:
        """Makes the next batch the running one: all of one shape, in the order of their arrival. False at the end."""
        with self._lock:
            while True:
                while not self._waiting:
                    if self._is_stopping:
                        return False
                    self._changed.wait()
                first = self._waiting[0]
                batch = [item for item in self._waiting if item.goes_with(first)][: self._size]
                left = first.arrival + self._wait - time.monotonic()
                if len(batch) == self._size or left <= 0 or first.is_alone or self._is_stopping:
                    break
                self._changed.wait(left)
            for item in batch:
                self._waiting.remove(item)
            self._running = batch
            return True

    def _answer(self) -> None:
        """Calls the author's code for the running batch, and wakes the threads of its requests."""
        batch = self._running
        outcome = self._call(batch)
        if isinstance(outcome, list):
            results: list[Any] | None = outcome
        elif len(batch) == 1 or isinstance(outcome, Cancelled):
            results = [outcome] * len(batch)
        else:
            if not isinstance(outcome, InputError):
                traceback.print_exception(outcome)
            results = None
        with self._lock:
            if results is None:
                # One of them is at fault, and nobody knows which: each gets a batch of its own, before all others.
                for item in reversed(batch):
                    self._divide(item)
            else:
                for item, result in zip(batch, results, strict=True):
                    item.finish(result)
            self._running = []
            # From here on no exception may be raised into this thread.
            raise_in(threading.get_ident(), None)

    def _divide(self, item: Item) -> None:
        """Puts an item of a batch that failed before all that wait, to go by itself. With the lock held."""
        if item.context.cancelled:
            item.finish(Cancelled())
        elif item.done.locked():
            item.is_alone = True
            self._waiting.appendleft(item)

    def _call(self, batch: list[Item]) -> list[Any] | BaseException:
        """A result for each, or the exception that all of them failed with."""
        values, contexts = [item.value for item in batch], [item.context for item in batch]
        # What is logged for several requests is no single one's.
        logs.set_request(contexts[0].request_id if len(batch) == 1 else "")
        try:
            results = list(self._function.predict_batch(values, contexts))
            if len(results) != len(batch):
                raise TypeError(f"predict_batch returned {len(results)} results for {len(batch)} inputs")
        except BaseException as error:
            return error
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logs.set_request("")
        return results
