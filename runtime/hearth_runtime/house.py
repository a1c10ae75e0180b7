"""A process that many models of one function share: each is loaded, served and unloaded by itself."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

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
        # What is freed at the end of any other arena than the first is not given back by malloc_trim.
        _libc.mallopt(_M_ARENA_MAX, 1)
        self._footprint = Footprint()

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
            control = ModelControl(self._control, worker)
            function = self._function.housing(message["model"], control)
            self._models[worker] = HousedModel(function, control, self._slots, self._footprint)
            threading.Thread(target=self._live, args=(worker,), name=message["model"]["name"], daemon=True).start()
        elif (model := self._models.get(worker)) is None:
            # It failed to load or has just gone. A connection to it must not be taken for the next one's.
            if message.get("type") == "connect":
                for descriptor in self._control.take_descriptors(1):
                    os.close(descriptor)
        elif message.get("type") == "unload":
            model.server.stop()
        else:
            model.server.take(message, self._control)

    def _live(self, worker: str) -> None:
        """A model's own thread, for as long as it is there."""
        model = self._models[worker]
        if model.load():
            model.server.live()
        del self._models[worker]
        model.leave()


class HousedModel:
    """One model in a house."""

    def __init__(self, function: Function, control: Control, slots: int, footprint: "Footprint") -> None:
        self._function = function
        self._control = control
        self._footprint = footprint
        self._share = Share(function.model_bytes)
        self.server = Server(function, control, slots)
        self.server.may_stop()
        self.server.first = self._first_request

    def load(self) -> bool:
        """Loads it, and reports how that went."""
        with self._footprint.growth(self._share):
            is_loaded = self._function.load()
            # What was needed for the load alone goes back.
            _libc.malloc_trim(0)
        return is_loaded

    @contextmanager
    def _first_request(self) -> Iterator[None]:
        """Around its first request: with that it has taken what it is going to take."""
        with self._footprint.growth(self._share):
            yield
        if self._function.size is None:
            self._function.tell_size(self._footprint.bytes_of(self._share))

    def leave(self) -> None:
        """Gives its memory back to the machine, and reports that it has."""
        held = self._footprint.bytes_of(self._share)
        before = resident_bytes()
        self._function.unload()
        _libc.malloc_trim(0)
        if before - resident_bytes() < held // 2:
            # Something in a cycle of references holds it.
            gc.collect()
            _libc.malloc_trim(0)
        self._footprint.forget(self._share)
        self._control.send({"type": "unloaded"})


class Share:
    """What one model takes of its process."""

    def __init__(self, weight: int) -> None:
        #: The size of its files: what is not known to be anyone's is shared out by it.
        self.weight = max(weight, 1)
        #: By how much the process grew on its account.
        self.growth = 0
        #: Whether that is all its own: nothing else grew beside it.
        self.is_known = True


class Footprint:
    """Tells what each model takes of the process: what it grows by at its load and its first request.

    While several grow at a time, what nobody is known to take is shared out among them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base = resident_bytes()
        self._shares: set[Share] = set()
        self._growing = 0
        #: How often something began to grow.
        self._begun = 0

    @contextmanager
    def growth(self, share: Share) -> Iterator[None]:
        """Adds what the process grows by meanwhile to a model's share."""
        with self._lock:
            self._shares.add(share)
            self._begun += 1
            self._growing += 1
            begun, is_alone = self._begun, self._growing == 1
        before = resident_bytes()
        try:
            yield
        finally:
            growth = max(0, resident_bytes() - before)
            with self._lock:
                self._growing -= 1
                share.is_known &= is_alone and begun == self._begun
                share.growth += growth

    def bytes_of(self, share: Share) -> int:
        """What a model takes, as far as can be told."""
        if share.is_known:
            return share.growth
        with self._lock:
            known = sum(other.growth for other in self._shares if other.is_known)
            weights = sum(other.weight for other in self._shares if not other.is_known)
        return max(0, resident_bytes() - self._base - known) * share.weight // max(weights, share.weight)

    def forget(self, share: Share) -> None:
        """A model is gone."""
        with self._lock:
            self._shares.discard(share)


def resident_bytes() -> int:
    """The resident memory of this process (proc(5), statm)."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
