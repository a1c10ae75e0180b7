"""The author's class: found, loaded, called."""

import asyncio
import contextlib
import copy
import gc
import importlib.util
import inspect
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from hearth_runtime import logs
from hearth_runtime.context import Cancelled, Context, Model, config_of
from hearth_runtime.control import Control

#: 2,000 characters: more of an exception's text than anyone reads in an answer.
MESSAGE_MAX = 2000

_RUNTIME = str(Path(__file__).resolve().parent)


class Function:
    """One function of one bundle in this process."""

    def __init__(self, launch: dict[str, Any], control: Control) -> None:
        self._bundle = Path(launch["bundle"])
        self._handler: str = launch["handler"]
        self._hidden = _hidden_paths(launch)
        self._control = control
        self._loops = threading.local()
        #: By thread: the event loop and the task it runs now.
        self._tasks: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}
        device = launch.get("device") or {"name": "cpu"}
        #: Bytes a second by which a simulated device takes weights.
        self._bandwidth: int | None = device.get("bandwidth")
        self.context = Context(self._bundle, config_of(launch["config"]), self._progress, device["name"])
        #: What to load, where the function is one of many models.
        self._model: Model | None = None
        if launch.get("model") is not None:
            self.expect(launch["model"])
        #: The author's object, once it is made.
        self._instance: Any = None
        self._predict: Any = None
        self._predict_batch: Any = None
        self._shape: Any = None
        self._is_async = False
        batching = launch.get("batching")
        #: The most requests in a batch, and how long the first waits for others, in seconds; None: no batches.
        self.batching: tuple[int, float] | None = batching and (batching["size"], batching["wait_seconds"])
        #: What the author's `size` says that the loaded model takes, in bytes.
        self.size: int | None = None

    def housing(self, model: dict[str, Any], control: Control) -> "Function":
        """The same author's object for one of the models that share this process."""
        other = copy.copy(self)
        other._control = control
        other._tasks = {}
        other.size = None
        other.context = copy.copy(self.context)
        other.context._report = other._progress
        other.expect(model)
        return other

    def expect(self, model: dict[str, Any]) -> None:
        """Says which of the function's models to load."""
        self._model = Model(model["name"], Path(model["path"]), model["bytes"], self.context.device)
        self._hidden = [(model["path"], "<model>"), *self._hidden]

    def prepare(self) -> bool:
        """Imports the class and makes it, for a model that is named later; reports how that went, and returns it."""
        if not self._reported(self._make):
            return False
        keeps = all(hasattr(self._instance, name) for name in ("offload", "restore"))
        self._control.send({"type": "waiting", "keeps": keeps})
        return True

    def load(self) -> bool:
        """Imports the class and loads it; reports ready or failed, and returns which."""
        began = time.monotonic()
        if not self._reported(self._load):
            return False
        self._tell_ready(began, is_restored=False)
        return True

    def _tell_ready(self, began: float, is_restored: bool) -> None:
        seconds = round(time.monotonic() - began, 6)
        self._control.send({"type": "ready", "load_seconds": seconds, "restored": is_restored})
        if self.size is not None:
            self.tell_size(self.size, self.size)

    def offload(self) -> bool:
        """Takes the model off its device and keeps it, if the author's class can; returns whether it is kept.

        The author's `offload` and `restore` take and return what is then kept, or served; None stands for the same.
        """
        try:
            kept = self._instance.offload(self.context.model)
        except BaseException:
            traceback.print_exc()
            return False
        if kept is not None:
            self.context.model = kept
        return True

    def restore(self, control: Control) -> bool:
        """Brings a model back that was kept, or, if that fails, loads it; reports ready or failed as `load` does."""
        began = time.monotonic()
        self._control = control
        if not self._restored():
            # Out of reach of the exception, which holds on to what the author's code had by then.
            self.unload()
            gc.collect()
            return self.load()
        self._await_device(began)
        self._tell_ready(began, is_restored=True)
        return True

    def _restored(self) -> bool:
        try:
            served = self._instance.restore(self.context.model)
        except BaseException:
            traceback.print_exc()
            return False
        if served is not None:
            self.context.model = served
        return True

    def _await_device(self, began: float) -> None:
        """Lets as much time pass since a load began as a simulated device takes for it."""
        if self._bandwidth is not None:
            time.sleep(max(0.0, self.model_bytes / self._bandwidth - (time.monotonic() - began)))

    def tell_size(self, size: int, peak: int) -> None:
        """Reports what the model takes, and took at most while it was loaded, in bytes."""
        self._control.send({"type": "measured", "bytes": size, "peak_bytes": peak})

    @property
    def model_bytes(self) -> int:
        """The size of the model's files; 0 where the function is not one of many models."""
        return self._model.bytes if self._model is not None else 0

    def unload(self) -> None:
        """Lets go of the model, as the author's `unload` does it if there is one. Nothing happens if none is loaded."""
        unload = getattr(self._instance, "unload", None)
        try:
            if unload is not None and self.context.model is not None:
                unload(self.context.model)
        except BaseException:
            # What it has not released is seen by what the process still takes.
            traceback.print_exc()
        finally:
            self.context.model = None

    def _reported(self, step: Callable[[], None]) -> bool:
        """Takes a step of the author's code, and reports its failure."""
        try:
            step()
        except BaseException as error:
            self._control.send(
                {
                    "type": "failed",
                    "error_type": type(error).__name__,
                    "message": self.describe(error),
                    "traceback": traceback.format_exc(),
                    "out_of_memory": is_out_of_memory(error),
                }
            )
            traceback.print_exc()
            return False
        return True

    def _make(self) -> None:
        file_name, _, class_name = self._handler.partition(":")
        # Modules beside the handler are importable; the bundle comes before installed packages.
        sys.path.insert(0, str((self._bundle / file_name).parent))
        spec = importlib.util.spec_from_file_location("handler", self._bundle / file_name)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file_name} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules["handler"] = module
        spec.loader.exec_module(module)
        author_class: Any = getattr(module, class_name, None)
        if not isinstance(author_class, type):
            raise AttributeError(f"{file_name} has no class named {class_name}")
        make: Any = author_class
        self._instance = make(self.context) if _takes_argument(make.__init__) else make()

    def _load(self) -> None:
        if self._instance is None:
            self._make()
        instance = self._instance
        class_name = type(instance).__name__
        load = getattr(instance, "load", None)
        began = time.monotonic()
        if self._model is not None:
            if load is None:
                raise AttributeError(
                    f"{class_name} has no method load(self, model), which a function with models needs"
                )
            self.context.model = load(self._model)
            self.context.model_name = self._model.name
            if hasattr(instance, "size"):
                self.size = max(0, int(instance.size(self.context.model)))
            self._await_device(began)
        elif load is not None:
            load(self.context)
        self._predict = getattr(instance, "predict", None)
        if not callable(self._predict):
            raise AttributeError(f"{class_name} has no method predict(self, input, context)")
        self._is_async = inspect.iscoroutinefunction(self._predict)
        self._predict_batch = getattr(instance, "predict_batch", None)
        self._shape = getattr(instance, "shape", None)

    def predict(self, value: Any, context: Context) -> Any:
        """Calls the author's predict; an asynchronous one runs on this thread's event loop."""
        result = self._predict(value, context)
        return self._run(result) if self._is_async else result

    def predict_batch(self, values: list[Any], contexts: list[Context]) -> list[Any]:
        """Calls the author's predict_batch; without one, predict for each, and the exception of what failed."""
        if self._predict_batch is not None:
            answers = self._predict_batch(values, contexts)
            return list(self._run(answers) if inspect.iscoroutine(answers) else answers)
        results: list[Any] = []
        for value, context in zip(values, contexts, strict=True):
            if context.cancelled:
                results.append(Cancelled())
                continue
            logs.set_request(context.request_id)
            try:
                results.append(self.predict(value, context))
            except Exception as error:
                results.append(error)
        return results

    def shape(self, value: Any) -> Any:
        """What is equal for inputs that may go into one batch, as the author's `shape` says; without one, all may."""
        return self._shape(value) if self._shape is not None else None

    def chunks(self, body: Iterator[Any] | AsyncIterator[Any]) -> Iterator[Any]:
        """The chunks of a streamed result, whether it is asynchronous or not."""
        if isinstance(body, AsyncIterator):
            return self._drain(body)
        return body

    def _drain(self, body: AsyncIterator[Any]) -> Iterator[Any]:
        loop = self._loop()
        try:
            while True:
                try:
                    yield self._run(anext(body))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                loop.run_until_complete(close())

    def _run(self, awaitable: Any) -> Any:
        """Runs an awaitable on this thread's event loop. It is finished or cancelled afterwards, never left behind."""
        loop = self._loop()
        task = loop.create_task(_awaited(awaitable))
        self._tasks[threading.get_ident()] = (loop, task)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise Cancelled from None
        finally:
            self._tasks.pop(threading.get_ident(), None)
            if not task.done():
                task.cancel()
                with contextlib.suppress(BaseException):
                    loop.run_until_complete(task)

    def cancel_task(self, thread: int) -> bool:
        """Cancels what a thread's event loop runs, as asyncio does it; False when it runs nothing."""
        found = self._tasks.get(thread)
        if found is None:
            return False
        loop, task = found
        loop.call_soon_threadsafe(task.cancel)
        return True

    def describe(self, error: BaseException) -> str:
        """Type and text of an exception for callers, without paths of this machine."""
        return self.without_paths(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def without_paths(self, text: str) -> str:
        """A text for callers: what names a path of this machine is named as the author knows it."""
        for path, name in self._hidden:
            text = text.replace(path, name)
        return text[:MESSAGE_MAX]

    def _progress(self, fraction: float | None, note: str | None) -> None:
        message: dict[str, Any] = {"type": "progress"}
        if fraction is not None:
            message["fraction"] = min(1.0, max(0.0, float(fraction)))
        if note is not None:
            message["note"] = str(note)[:200]
        self._control.send(message)

    def end_thread(self) -> None:
        """Closes what the calling thread alone has used."""
        loop: asyncio.AbstractEventLoop | None = getattr(self._loops, "loop", None)
        if loop is not None:
            del self._loops.loop
            loop.close()

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop | None = getattr(self._loops, "loop", None)
        if loop is None:
            loop = self._loops.loop = asyncio.new_event_loop()
        return loop


#: What libraries say when memory was all that was missing: torch, onnxruntime and C++ itself.
_OUT_OF_MEMORY = ("out of memory", "failed to allocate memory", "bad_alloc", "bad allocation", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a load failed for want of memory, so that more of it may help."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _takes_argument(initialiser: Any) -> bool:
    """Whether an __init__ takes more than self. `inspect.signature` would cost a cold start three milliseconds."""
    code = getattr(initialiser, "__code__", None)
    return code is not None and (code.co_argcount > 1 or bool(code.co_flags & inspect.CO_VARARGS))


def _hidden_paths(launch: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [
        (launch["directory"] + "/tmp", "<temporary>"),
        (launch["directory"], "<worker>"),
        (launch["bundle"], "<bundle>"),
        (_RUNTIME, "<runtime>"),
        (sys.prefix, "<python>"),
        (sys.base_prefix, "<python>"),
    ]
    # The longest first: one folder may lie in another.
    return sorted(pairs, key=lambda pair: -len(pair[0]))
