"""A process that many models of one function share: each is loaded, served and unloaded by itself."""

import ctypes
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from hearth_runtime.control import Control, ControlSocket, Message, ModelControl
from hearth_runtime.function import Function
from hearth_runtime.serving import Server

_libc = ctypes.CDLL(None)
_M_ARENA_MAX = -8
_PAGE = os.sysconf("SC_PAGE_SIZE")


class House:
    """Loads and unloads models as the gateway says. Its main thread reads the control socket and nothing else."""

    def __init__(self, function: Function, control: ControlSocket, slots: int) -> None:
        self._function = function
        self._control = control
        self._slots = slots
        #: By the id of the worker that the gateway takes each model for.
        self._models: dict[str, HousedModel] = {}
        #: Models that are kept without their device, by name and path.
        self._kept: dict[tuple[str, str], Function] = {}
        self._lock = threading.Lock()
        # What is freed at the end of any other arena than the first is not given back by malloc_trim.
        _libc.mallopt(_M_ARENA_MAX, 1)
        self._footprint = Footprint(function.context.device)

    def run(self) -> NoReturn:
        """Obeys until the gateway is gone, or needs this process no more."""
        try:
            while (message := self._control.receive()) is not None and message.get("type") != "drain":
                self._take(message)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _take(self, message: Message) -> None:
        worker = message.get("worker", "")
        if message.get("type") == "load":
            self._load(worker, message["model"])
        elif message.get("type") == "discard":
            threading.Thread(target=self._discard, args=(message["model"],), daemon=True).start()
        elif (model := self._models.get(worker)) is None:
            # It failed to load or has just gone. A connection to it must not be taken for the next one's.
            if message.get("type") == "connect":
                for descriptor in self._control.take_descriptors(1):
                    os.close(descriptor)
        elif message.get("type") == "unload":
            # What comes for it from now on comes too late.
            del self._models[worker]
            model.is_to_be_kept = message["keep"]
            model.server.stop()
        else:
            model.server.take(message, self._control)

    def _load(self, worker: str, model: dict[str, Any]) -> None:
        control = ModelControl(self._control, worker)
        kept = self._take_kept(model)
        function = kept or self._function.housing(model, control)
        housed = HousedModel(function, control, self._slots, self._footprint)
        self._models[worker] = housed
        threading.Thread(
            target=self._live, args=(worker, housed, model, kept is not None), name=model["name"], daemon=True
        ).start()

    def _live(self, worker: str, housed: "HousedModel", model: dict[str, Any], is_kept: bool) -> None:
        """A model's own thread, for as long as it is there."""
        function = None
        try:
            if housed.load(is_kept):
                housed.server.live()
            housed.server.close()
            function = housed.leave()
            if function is not None:
                with self._lock:
                    self._kept[model["name"], model["path"]] = function
        except BaseException:
            # Whatever it is, the gateway must hear that the model is not there any more.
            traceback.print_exc()
        finally:
            self._models.pop(worker, None)
            housed.tell_unloaded(is_kept=function is not None)

    def _take_kept(self, model: dict[str, Any]) -> Function | None:
        with self._lock:
            return self._kept.pop((model["name"], model["path"]), None)

    def _discard(self, model: dict[str, Any]) -> None:
        kept = self._take_kept(model)
        if kept is not None:
            kept.unload()
            gc.collect()
            give_back()


class HousedModel:
    """One model in a house."""

    def __init__(self, function: Function, control: Control, slots: int, footprint: "Footprint") -> None:
        self._function = function
        self._control = control
        self._footprint = footprint
        self._share = Share(function.model_bytes)
        #: What it took while it was loaded beyond what it keeps, in bytes.
        self._load_extra = 0
        #: Whether it is to stay in the machine's memory when it leaves its device.
        self.is_to_be_kept = False
        self.server = Server(function, control, slots)
        self.server.may_stop()
        if footprint.is_measurable:
            self.server.first = self._first_request

    def load(self, is_kept: bool) -> bool:
        """Loads it, or restores it if it is kept, and reports how that went."""
        with self._footprint.growth(self._share):
            is_loaded = self._function.restore(self._control) if is_kept else self._function.load()
            # What was needed for the load alone goes back.
            most = self._footprint.read()
            give_back()
            self._load_extra = max(0, most - self._footprint.read())
        return is_loaded

    @contextmanager
    def _first_request(self) -> Iterator[None]:
        """Around its first request: with that it has taken what it is going to take."""
        try:
            with self._footprint.growth(self._share):
                yield
        finally:
            if self._function.size is None:
                size = self._footprint.bytes_of(self._share)
                # Others that load meanwhile may have given back as well: it hardly needed more than it keeps.
                self._function.tell_size(size, size + min(size, self._load_extra))

    def leave(self) -> Function | None:
        """Gives its memory back, or that of its device alone if it is to be kept. Returns what is kept."""
        held = self._footprint.bytes_of(self._share)
        with self._footprint.end(self._share):
            before = self._footprint.read()
            is_kept = self.is_to_be_kept and self._function.offload()
            if not is_kept:
                self._function.unload()
            give_back()
            if before - self._footprint.read() < held // 2:
                # Something in a cycle of references holds it.
                gc.collect()
                give_back()
        return self._function if is_kept else None

    def tell_unloaded(self, is_kept: bool) -> None:
        self._control.send({"type": "unloaded", "kept": is_kept})


class Share:
    """What one model takes of its process."""

    def __init__(self, weight: int) -> None:
        #: The size of its files: what is not known to be anyone's is shared out by it.
        self.weight = max(weight, 1)
        #: By how much the process grew on its account.
        self.growth = 0
        #: Whether that is all its own: nothing else changed beside it.
        self.is_known = True
        #: Whether it changes now.
        self.is_changing = False


class Footprint:
    """Tells what each model takes of the process: what it grows by at its load and its first request.

    Where several came or went at a time, what nobody is known to take is shared out among them.
    """

    def __init__(self, device: str) -> None:
        #: A simulated device holds nothing.
        self.is_measurable = not device.startswith("simulated")
        #: Tells what the whole process takes of the device, in bytes.
        self.read: Callable[[], int] = allocated_bytes if device.startswith("cuda") else resident_bytes
        self._lock = threading.Lock()
        self._base = self.read()
        self._shares: set[Share] = set()
        #: How many change now, and how often one has begun to.
        self._changing = 0
        self._begun = 0

    @contextmanager
    def growth(self, share: Share) -> Iterator[None]:
        """Adds what the process grows by meanwhile to a model's share."""
        begun, is_alone = self._begin(share)
        before = self.read()
        try:
            yield
        finally:
            growth = max(0, self.read() - before)
            with self._lock:
                share.is_known &= is_alone and begun == self._begun
                share.growth += growth
                share.is_changing = False
                self._changing -= 1

    @contextmanager
    def end(self, share: Share) -> Iterator[None]:
        """Around what gives a model's memory back: from then on it has no share."""
        self._begin(share)
        try:
            yield
        finally:
            with self._lock:
                self._shares.discard(share)
                self._changing -= 1

    def _begin(self, share: Share) -> tuple[int, bool]:
        with self._lock:
            self._shares.add(share)
            share.is_changing = True
            self._begun += 1
            self._changing += 1
            return self._begun, self._changing == 1

    def bytes_of(self, share: Share) -> int:
        """What a model takes, as far as can be told."""
        if share.is_known:
            return share.growth
        with self._lock:
            known = [other for other in self._shares if other.is_known and not other.is_changing]
            taken = sum(other.growth for other in known)
            weights = sum(other.weight for other in self._shares) - sum(other.weight for other in known)
        return max(0, self.read() - self._base - taken) * share.weight // max(weights, share.weight)


def give_back() -> None:
    """Returns to the machine, and to the GPU, what was freed and is kept for later."""
    _libc.malloc_trim(0)
    cuda = _cuda_in_use()
    if cuda is not None:
        with suppress(Exception):
            cuda.empty_cache()


def allocated_bytes() -> int:
    """What this process holds of its GPU by way of PyTorch, the one library that tells it."""
    cuda = _cuda_in_use()
    return int(cuda.memory_allocated()) if cuda is not None else 0


def _cuda_in_use() -> Any:
    """PyTorch's `cuda` once it is in use; None before, and while PyTorch itself is only being imported."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        return cuda if cuda is not None and cuda.is_initialized() else None
    except Exception:
        return None


def resident_bytes() -> int:
    """The resident memory of this process (proc(5), statm)."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
