"""Server-side batching: which requests go together, and what becomes of those that fail, are cancelled or hang."""

import concurrent.futures
import time

import pytest

# Batches are made by the runtime: to the gateway they are requests as any others.
pytestmark = pytest.mark.repeats

#: Says how many were in its batch; "slow" holds the batch up, "poison" makes it fail, "missing" fails alone.
BATCHED = """
import time
from hearth_runtime import InputError

class Model:
    seen = []

    def predict(self, input, context):
        return {"alone": True}

    def predict_batch(self, inputs, contexts):
        self.seen += inputs
        if inputs == ["seen"]:
            return [self.seen]
        if "slow" in inputs:
            time.sleep(0.5)
        if "refused" in inputs:
            raise InputError("send something else")
        if "poison" in inputs:
            raise ValueError("poison")
        ids = len({context.request_id for context in contexts})
        return [KeyError("missing") if input == "missing" else {"batch": len(inputs), "ids": ids} for input in inputs]
"""
FOUR = "batching: {max-size: 4}\nscaling: {max-workers: 1}\n"


def at_once(gateway, name, values, **fields):
    """Calls with each value at the same time; the answers in their order."""
    with concurrent.futures.ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(lambda value: gateway.call(name, value, **fields), values))


def behind_a_slow_one(gateway, name, values):
    """Calls with the values while the worker is at a batch of one; their answers."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gateway.call, name, "slow")
        gateway.wait_for(lambda: gateway.workers() and gateway.workers()[0]["inFlight"] == 1, "the slow one to run")
        time.sleep(0.1)
        answers = at_once(gateway, name, values)
        assert slow.result().json == {"batch": 1, "ids": 1}
    return answers


def test_what_waits_goes_together_and_no_more_than_fits(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    assert gateway.call("batched", "first").json == {"batch": 1, "ids": 1}
    sizes = sorted(answer.json["batch"] for answer in behind_a_slow_one(gateway, "batched", list("abcdef")))
    assert sizes == [2, 2, 4, 4, 4, 4]


def test_a_wait_gathers_those_who_come_meanwhile(gateway):
    gateway.deploy("batched", BATCHED, "batching: {max-size: 3, max-wait: 10s}\n")
    began = time.monotonic()
    assert [answer.json["batch"] for answer in at_once(gateway, "batched", list("abc"))] == [3, 3, 3]
    assert time.monotonic() - began < 9, "a full batch waits for nobody"


def test_one_that_fails_fails_alone(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    gateway.call("batched", "first")
    good, missing, other = behind_a_slow_one(gateway, "batched", ["a", "missing", "b"])
    assert (good.json["batch"], other.json["batch"]) == (3, 3)
    assert (missing.status, missing.code) == (500, "function_exception")
    assert "KeyError" in missing.body.decode()


def test_a_batch_that_fails_is_taken_apart(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    gateway.call("batched", "first")
    good, poison, other = behind_a_slow_one(gateway, "batched", ["a", "poison", "b"])
    assert (good.json["batch"], other.json["batch"]) == (1, 1)
    assert (poison.status, poison.code) == (500, "function_exception")


def test_one_that_is_refused_is_the_clients_fault(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    gateway.call("batched", "first")
    good, refused, _ = behind_a_slow_one(gateway, "batched", ["a", "refused", "b"])
    assert good.json["batch"] == 1
    assert (refused.status, refused.code) == (400, "function_input")
    gateway.call("batched", "poison")
    gateway.wait_for(lambda: "ValueError: poison" in gateway.functions_log("batched"), "the log")
    assert gateway.functions_log("batched").count("Traceback") == 1, "nobody is told of what was refused"


def test_without_predict_batch_each_is_predicted_by_itself(gateway):
    gateway.deploy(
        "plain",
        "class Model:\n    def predict(self, input, context):\n        return 1 // input\n",
        "batching: {max-size: 4, max-wait: 200ms}\n",
    )
    answers = at_once(gateway, "plain", [1, 0, 1])
    assert [answer.status for answer in answers] == [200, 500, 200]


def test_an_asynchronous_predict_batch_is_awaited(gateway):
    gateway.deploy(
        "later",
        "import asyncio\nclass Model:\n    async def predict_batch(self, inputs, contexts):\n"
        "        await asyncio.sleep(0.01)\n        return [len(inputs)] * len(inputs)\n"
        "    def predict(self, input, context): ...\n",
        "batching: {max-size: 2, max-wait: 10s}\n",
    )
    assert [answer.json for answer in at_once(gateway, "later", [1, 2])] == [2, 2]


def test_each_answer_of_a_batch_may_be_a_stream(gateway):
    gateway.deploy(
        "streams",
        "class Model:\n    def predict(self, input, context): ...\n    def predict_batch(self, inputs, contexts):\n"
        "        return [self.count(input) for input in inputs]\n"
        "    def count(self, input):\n        for n in range(3): yield f'{input}{n};'\n",
        "batching: {max-size: 2, max-wait: 10s}\n",
    )
    assert [answer.body for answer in at_once(gateway, "streams", ["a", "b"])] == [b"a0;a1;a2;", b"b0;b1;b2;"]


def test_who_leaves_a_batch_holds_nobody_up(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    gateway.call("batched", "first")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(gateway.call, "batched", "slow")
        time.sleep(0.1)
        # It waits behind the slow one, and is gone before its batch begins.
        gone = pool.submit(lambda: gateway.call("batched", "a", **{"Hearth-Deadline": "100ms"}))
        assert gone.result().code == "request_deadline"
        assert slow.result().json["batch"] == 1
    assert gateway.call("batched", "b").json == {"batch": 1, "ids": 1}
    assert gateway.call("batched", "seen").json == ["first", "slow", "b", "seen"], "one that left is never begun"


def test_a_batch_that_nobody_waits_for_is_interrupted(gateway):
    gateway.deploy(
        "sleeps",
        "import time\nclass Model:\n    def predict(self, input, context): ...\n"
        "    def predict_batch(self, inputs, contexts):\n"
        "        while inputs[0] == 'sleep': time.sleep(0.01)\n        return inputs\n",
        "batching: {max-size: 4, max-wait: 100ms}\nscaling: {max-workers: 1}\n",
    )
    assert gateway.call("sleeps", "a").json == "a"
    (worker,) = gateway.workers()
    answers = at_once(gateway, "sleeps", ["sleep", "sleep"], **{"Hearth-Deadline": "500ms"})
    assert [answer.code for answer in answers] == ["request_deadline"] * 2
    assert gateway.call("sleeps", "b").json == "b"
    assert [w["worker"] for w in gateway.workers()] == [worker["worker"]], "the same worker goes on"


def test_a_batch_that_cannot_be_interrupted_costs_its_worker(gateway):
    gateway.deploy(
        "stuck",
        "import time\nclass Model:\n    def predict(self, input, context): ...\n"
        "    def predict_batch(self, inputs, contexts):\n"
        "        if inputs[0] == 'stuck': time.sleep(600)\n        return inputs\n",
        "batching: {max-size: 4}\nscaling: {max-workers: 1}\n",
    )
    assert gateway.call("stuck", "a").json == "a"
    (worker,) = gateway.workers()
    assert gateway.call("stuck", "stuck", **{"Hearth-Deadline": "300ms"}).code == "request_deadline"
    # One that was handed to it meanwhile goes with it, unless the function is idempotent.
    behind = gateway.call("stuck", "b", timeout=60)
    assert behind.code == "worker_died" or behind.json == "b"
    assert gateway.call("stuck", "c", timeout=60).json == "c"
    assert [w["worker"] for w in gateway.workers()] != [worker["worker"]]


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_models_do_not_share_batches(gateway, isolation):
    gateway.deploy(
        "zoo",
        "class Model:\n    def load(self, model):\n        return model.name\n"
        "    def predict(self, input, context): ...\n    def predict_batch(self, inputs, contexts):\n"
        "        return [{context.model for context in contexts} == {contexts[0].model} and len(inputs)] * len(inputs)\n",
        f"models: models\nisolation: {isolation}\nbatching: {{max-size: 2, max-wait: 10s}}\n",
        files={"models/a": "a", "models/b": "b"},
    )
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(gateway.request, f"/functions/zoo/models/{name}", b"1") for name in "abab"]
    assert [call.result().json for call in calls] == [2, 2, 2, 2]


def test_shapes_go_apart(gateway):
    gateway.deploy(
        "shaped",
        "class Model:\n    def shape(self, input): return len(input)\n    def predict(self, input, context): ...\n"
        "    def predict_batch(self, inputs, contexts): return [sorted(inputs)] * len(inputs)\n",
        "batching: {max-size: 2, max-wait: 10s}\n",
    )
    answers = at_once(gateway, "shaped", ["a", "bb", "c", "dd"])
    assert [answer.json for answer in answers] == [["a", "c"], ["bb", "dd"], ["a", "c"], ["bb", "dd"]]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("batching: {max-wait: 5ms}\n", "has no 'max-size'"),
        ("batching: {max-size: 1}\n", "from 2 to 128"),
        ("batching: {max-size: 129}\n", "from 2 to 128"),
        ("batching: {max-size: 4, max-wait: 11s}\n", "from 0s to 10s"),
        ("batching: {max-size: 4, max-wait: soon}\n", "such as 5ms"),
        ("batching: {max-size: 4, wait: 1s}\n", "max-wait"),
        ("batching: {max-size: 4}\nscaling: {max-concurrency: 3}\n", "fewer than a batch of 4"),
        ("batching: {max-size: 4}\ncommand: [bin/server]\n", "'batching' is for a 'handler'"),
    ],
)
def test_what_function_yaml_may_not_say_of_batches(gateway, spec, text):
    with pytest.raises(AssertionError, match=text):
        gateway.deploy("wrong", BATCHED, spec)


def test_a_batch_of_twice_as_many_requests_is_taken_at_a_time(gateway):
    gateway.deploy("batched", BATCHED, FOUR)
    knobs = {row["name"]: row["value"] for row in gateway.admin_request("GET", "/v1/functions/batched/policy").json}
    assert knobs["max-concurrency"] == "8"
