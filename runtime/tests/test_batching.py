"""Requests gathered into batches: how many, in which order, and what becomes of those that fail or are cancelled."""

import threading
import time
from typing import Any

import pytest
from hearth_runtime.batching import Batcher
from hearth_runtime.context import Cancelled, Context
from hearth_runtime.interrupt import raise_in


class Author:
    """An author's function under test: doubles numbers, and notes the batches it gets."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def shape(self, value: Any) -> Any:
        return type(value)

    def predict_batch(self, values: list[Any], contexts: list[Context]) -> list[Any]:
        self.batches.append(values)
        self.entered.release()
        while not self.gate.wait(0.01):
            pass
        if "poison" in values:
            raise ValueError("poison")
        if "short" in values:
            return []
        return [KeyError(value) if value == "missing" else value * 2 for value in values]

    def cancel_task(self, thread: int) -> bool:
        return False


def a_context() -> Context:
    return Context(None, {}, lambda fraction, note: None)  # type: ignore[arg-type]


class Caller(threading.Thread):
    """A request's thread."""

    def __init__(self, batcher: Batcher, value: Any) -> None:
        super().__init__(daemon=True)
        self.batcher, self.value, self.context = batcher, value, a_context()
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.batcher.predict(self.value, self.context)
        except BaseException as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(20)
        assert not self.is_alive(), "the request was never answered"
        return self.outcome

    def cancel(self) -> bool:
        self.context.cancel()
        return self.batcher.cancel(self.context)


def waiting(batcher: Batcher, count: int) -> None:
    """Waits until so many requests wait."""
    for _ in range(2000):
        if len(batcher._waiting) == count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{len(batcher._waiting)} wait, not {count}")


def held(author: Author, batcher: Batcher) -> Caller:
    """A request that the author's code is at until the gate opens."""
    author.gate.clear()
    caller = Caller(batcher, 0)
    assert author.entered.acquire(timeout=20)
    return caller


@pytest.fixture
def author() -> Author:
    return Author()


def test_without_a_wait_what_waits_already_goes_together(author: Author) -> None:
    batcher = Batcher(author, size=4, wait=0)
    first = held(author, batcher)
    others = []
    for number in range(1, 7):
        others.append(Caller(batcher, number))
        waiting(batcher, number)
    author.gate.set()
    assert first.result() == 0
    assert [caller.result() for caller in others] == [2, 4, 6, 8, 10, 12]
    assert author.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_wait_gathers_until_the_batch_is_full(author: Author) -> None:
    batcher = Batcher(author, size=3, wait=600)
    callers = [Caller(batcher, number) for number in range(3)]
    assert sorted(caller.result() for caller in callers) == [0, 2, 4]
    assert [len(batch) for batch in author.batches] == [3]


def test_a_lone_request_waits_no_longer_than_it_must(author: Author) -> None:
    batcher = Batcher(author, size=3, wait=0.05)
    began = time.monotonic()
    assert Caller(batcher, 1).result() == 2
    assert time.monotonic() - began >= 0.05


def test_only_what_has_the_same_shape_goes_together(author: Author) -> None:
    batcher = Batcher(author, size=8, wait=0)
    first = held(author, batcher)
    callers = []
    for count, value in enumerate([1, "a", 2, "b"], 1):
        callers.append(Caller(batcher, value))
        waiting(batcher, count)
    author.gate.set()
    assert [caller.result() for caller in [first, *callers]] == [0, 2, "aa", 4, "bb"]
    assert author.batches == [[0], [1, 2], ["a", "b"]]


def test_an_exception_in_the_place_of_a_result_fails_that_one_alone(author: Author) -> None:
    batcher = Batcher(author, size=2, wait=600)
    good, bad = Caller(batcher, "a"), Caller(batcher, "missing")
    assert good.result() == "aa"
    assert isinstance(bad.result(), KeyError)
    assert len(author.batches) == 1


def test_a_batch_that_fails_is_taken_apart(author: Author) -> None:
    batcher = Batcher(author, size=3, wait=600)
    callers = [Caller(batcher, value) for value in ("a", "poison", "b")]
    assert [caller.result() for caller in (callers[0], callers[2])] == ["aa", "bb"]
    assert isinstance(callers[1].result(), ValueError)
    assert [len(batch) for batch in author.batches] == [3, 1, 1, 1]


def test_one_that_leaves_while_its_batch_is_taken_apart_is_not_begun(author: Author) -> None:
    author.gate.clear()
    batcher = Batcher(author, size=3, wait=600)
    callers = []
    for count, value in enumerate(["poison", "a", "b"], 1):
        callers.append(Caller(batcher, value))
        if count < 3:
            waiting(batcher, count)
    assert author.entered.acquire(timeout=20)
    assert callers[1].cancel()
    author.gate.set()
    assert isinstance(callers[0].result(), ValueError)
    assert isinstance(callers[1].result(), Cancelled)
    assert callers[2].result() == "bb"
    assert author.batches == [["poison", "a", "b"], ["poison"], ["b"]]


def test_work_that_nobody_waits_for_is_interrupted_also_when_its_batch_was_taken_apart(author: Author) -> None:
    interrupted = threading.Event()

    def predict_batch(values: list[Any], contexts: list[Context]) -> list[Any]:
        if "poison" in values:
            raise ValueError("poison")
        try:
            author.entered.release()
            while values == ["slow"]:
                time.sleep(0.005)
        except Cancelled:
            interrupted.set()
            raise
        return values

    author.predict_batch = predict_batch  # type: ignore[method-assign]
    batcher = Batcher(author, size=2, wait=600)
    poison = Caller(batcher, "poison")
    waiting(batcher, 1)
    slow = Caller(batcher, "slow")
    assert isinstance(poison.result(), ValueError)
    assert author.entered.acquire(timeout=20)
    assert slow.cancel()
    assert isinstance(slow.result(), Cancelled)
    assert interrupted.is_set()
    pair = [Caller(batcher, "x"), Caller(batcher, "y")]
    assert sorted(caller.result() for caller in pair) == ["x", "y"]


def test_a_shape_that_is_unlike_itself_is_a_batch_of_its_own(author: Author) -> None:
    author.shape = lambda value: float("nan")  # type: ignore[method-assign]
    batcher = Batcher(author, size=4, wait=0)
    assert Caller(batcher, 2).result() == 4
    assert author.batches == [[2]]


def test_an_exception_in_a_waiting_thread_leaves_the_batcher_as_it_was(author: Author) -> None:
    batcher = Batcher(author, size=2, wait=0)
    batcher._lock.acquire()
    caller = Caller(batcher, 1)
    time.sleep(0.05)
    raise_in(caller.ident or 0, Cancelled)
    time.sleep(0.05)
    batcher._lock.release()
    caller.join(20)
    assert Caller(batcher, 2).result() == 4


def test_too_few_results_are_an_error_that_says_so(author: Author) -> None:
    outcome = Caller(Batcher(author, size=1, wait=0), "short").result()
    assert isinstance(outcome, TypeError)
    assert str(outcome) == "predict_batch returned 0 results for 1 inputs"


def test_a_shape_that_cannot_be_compared_is_its_requests_error(author: Author) -> None:
    author.shape = lambda value: []  # type: ignore[method-assign]
    assert isinstance(Caller(Batcher(author, size=2, wait=0), 1).result(), TypeError)
    author.shape = lambda value: None  # type: ignore[method-assign]
    assert Caller(Batcher(author, size=2, wait=0), 1).result() == 2


def test_a_cancelled_request_that_waits_is_never_begun(author: Author) -> None:
    batcher = Batcher(author, size=4, wait=0)
    first = held(author, batcher)
    unwanted, wanted = Caller(batcher, 1), Caller(batcher, 2)
    waiting(batcher, 2)
    assert unwanted.cancel()
    assert isinstance(unwanted.result(), Cancelled)
    author.gate.set()
    assert (first.result(), wanted.result()) == (0, 4)
    assert author.batches == [[0], [2]]


def test_a_batch_goes_on_while_one_of_its_requests_is_wanted(author: Author) -> None:
    author.gate.clear()
    batcher = Batcher(author, size=2, wait=600)
    unwanted, wanted = Caller(batcher, 1), Caller(batcher, 2)
    assert author.entered.acquire(timeout=20)
    assert unwanted.cancel()
    assert isinstance(unwanted.result(), Cancelled)
    assert wanted.is_alive()
    author.gate.set()
    assert wanted.result() == 4


def test_the_last_request_to_be_cancelled_ends_the_batch_and_the_next_one_runs(author: Author) -> None:
    author.gate.clear()
    batcher = Batcher(author, size=2, wait=600)
    pair = [Caller(batcher, 1), Caller(batcher, 2)]
    assert author.entered.acquire(timeout=20)
    assert all(caller.cancel() for caller in pair)
    assert all(isinstance(caller.result(), Cancelled) for caller in pair)
    author.gate.set()
    next_pair = [Caller(batcher, 3), Caller(batcher, 4)]
    assert [caller.result() for caller in next_pair] == [6, 8]


def test_cancels_that_cross_the_end_of_their_batch_hang_nobody(author: Author) -> None:
    batcher = Batcher(author, size=2, wait=0.0005)
    for _ in range(300):
        callers = [Caller(batcher, number) for number in range(3)]
        for caller in callers:
            caller.cancel()
        for caller in callers:
            outcome = caller.result()
            assert isinstance(outcome, Cancelled) or outcome == caller.value * 2
    assert Caller(batcher, 21).result() == 42


def test_stopping_ends_its_thread_and_answers_what_waits(author: Author) -> None:
    batcher = Batcher(author, size=4, wait=600)
    caller = Caller(batcher, 1)
    waiting(batcher, 1)
    batcher.stop()
    assert caller.result() == 2
    assert not batcher._thread.is_alive()
