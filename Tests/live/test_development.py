"""`hearth run`, templates, and functions that call each other."""

import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
from gateway import HEARTH, PATIENCE, write_function

ANSWERS = "class Model:\n    def predict(self, input, context):\n        print('asked')\n        return {answer}\n"


class Development:
    """A running `hearth run`, and what it has printed."""

    def __init__(self, folder, cache, *arguments):
        self.text = ""
        self.process = subprocess.Popen(
            [HEARTH, "run", str(folder), "--listen", "127.0.0.1:0", "--data-dir", str(cache), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, pattern, since=0):
        """Where a text ends that it is to print; fails when it does not."""
        deadline = time.monotonic() + 20 * PATIENCE
        while time.monotonic() < deadline:
            found = re.search(pattern, self.text[since:])
            if found:
                return since + found.end()
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} was not printed: {self.text}")

    def call(self):
        address = re.search(r"POST (\S+)", self.text)[1]
        request = urllib.request.Request(address, b"1", {"Content-Type": "application/json"}, method="POST")
        return urllib.request.urlopen(request, timeout=30).read().decode()

    def end(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=30 * PATIENCE) == 0, self.text
        self.reader.join(timeout=10)


@pytest.fixture
def cache(tmp_path_factory):
    """Short, since sockets lie in it."""
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="hr-", dir="/tmp")
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_change_is_served_and_one_that_fails_is_told_of(tmp_path, cache):
    folder = tmp_path / "hello"
    write_function(folder, "hello", ANSWERS.format(answer=1))
    running = Development(folder, cache)
    try:
        seen = running.wait_for("Watching")
        assert running.call() == "1"
        running.wait_for("asked")

        (folder / "handler.py").write_text(ANSWERS.format(answer=2))
        seen = running.wait_for("version 2 is served", seen)
        assert running.call() == "2"

        (folder / "handler.py").write_text("class Model:\n    oops\n")
        seen = running.wait_for("NameError.*oops", seen)
        assert running.call() == "2", "the version before goes on"

        (folder / "function.yaml").write_text("name: hello\nhandler: nowhere\n")
        seen = running.wait_for("function.yaml:2:", seen)

        write_function(folder, "hello", ANSWERS.format(answer=3))
        running.wait_for("is served", seen)
        assert running.call() == "3"
    finally:
        running.end()


def test_a_function_that_cannot_be_loaded_is_told_of_at_once(tmp_path, cache):
    folder = tmp_path / "broken"
    write_function(folder, "broken", "class Model:\n    def load(self, context): raise RuntimeError('no weights')\n")
    running = Development(folder, cache)
    try:
        seen = running.wait_for("It cannot be loaded: .*no weights")
        write_function(folder, "broken", ANSWERS.format(answer=1))
        running.wait_for("version 2 is served", seen)
        assert running.call() == "1"
    finally:
        running.end()


def test_what_is_no_function_is_refused(tmp_path):
    result = subprocess.run([HEARTH, "run", str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1 and "no readable function.yaml" in result.stderr


def test_a_template_is_copied_under_another_name(gateway, tmp_path):
    folder = tmp_path / "my-server"
    result = subprocess.run(
        [HEARTH, "bundle", "init", str(folder), "--template", "any-server"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 0 and "hearth run" in result.stdout, result.stderr
    assert not (folder / "README.md").exists()
    gateway.cli("deploy", str(folder))
    answer = gateway.request("/functions/my-server", b"two words", fields={"Content-Type": "text/plain"})
    assert answer.json["words"] == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x", "--template", "embedd"], "Did you mean 'embed'"),
        (["x", "--template", "../embed"], "no template"),
        (["Bad Name", "--template", "embed"], "is not a function name"),
    ],
)
def test_what_is_no_template(tmp_path, arguments, text):
    result = subprocess.run(
        [HEARTH, "bundle", "init", *arguments], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )
    assert result.returncode == 1 and text in result.stderr, result.stderr


CALLS = """
from hearth_runtime import CallError

class Model:
    def predict(self, input, context):
        try:
            return {"answer": context.call(input["function"], input.get("value"))}
        except CallError as error:
            return {"status": error.status, "code": error.code, "text": str(error)}
"""


def test_a_function_calls_another_one(gateway):
    gateway.deploy("caller", CALLS, "network: true\n")
    gateway.deploy("length", "class Model:\n    def predict(self, input, context):\n        return len(input)\n")
    gateway.deploy("bytes", "class Model:\n    def predict(self, input, context):\n        return input[::-1]\n")
    assert gateway.call("caller", {"function": "length", "value": "abc"}).json == {"answer": 3}
    assert gateway.call("caller", {"function": "length", "value": {"a": 1}}).json == {"answer": 1}
    assert gateway.call("caller", {"function": "bytes", "value": "ab"}).json == {"answer": "ba"}
    failed = gateway.call("caller", {"function": "length", "value": 5}).json
    assert (failed["status"], failed["code"]) == (500, "function_exception")
    assert failed["text"].startswith("length: TypeError")
    assert gateway.call("caller", {"function": "nobody"}).json["code"] == "function_not_found"


def test_a_worker_that_a_restart_brings_back_finds_the_gateway(gateway):
    gateway.deploy("caller", CALLS, "network: true\nscaling: {min-workers: 1, max-workers: 1}\n")
    gateway.deploy("length", "class Model:\n    def predict(self, input, context):\n        return len(input)\n")
    gateway.terminate()
    gateway.start()
    gateway.wait_for(lambda: [w for w in gateway.workers() if w["state"] == "idle"], "the worker")
    answer = gateway.call("caller", {"function": "length", "value": "abc"})
    assert (answer.start, answer.json) == ("hot", {"answer": 3})


def test_a_call_has_the_deadline_of_its_request(gateway):
    gateway.deploy("caller", CALLS, "network: true\n")
    gateway.deploy(
        "left",
        "import time\nclass Model:\n    def predict(self, input, context):\n"
        "        return context.deadline and context.deadline - time.monotonic()\n",
    )
    assert gateway.call("caller", {"function": "left"}).json == {"answer": None}
    answer = gateway.call("caller", {"function": "left"}, **{"Hearth-Deadline": "20s"})
    assert 0 < answer.json["answer"] <= 20.1


@pytest.mark.parametrize("slots", [1, 2])
def test_a_call_ends_with_the_request_that_it_is_for(gateway, slots):
    gateway.deploy("caller", CALLS, f"network: true\nscaling: {{max-concurrency: {slots}, max-workers: 1}}\n")
    gateway.deploy(
        "slow", "import time\nclass Model:\n    def predict(self, input, context):\n        time.sleep(20)\n"
    )
    assert gateway.call("caller", {"function": "nobody"}).json["code"] == "function_not_found"
    (worker,) = (w["worker"] for w in gateway.workers() if w["function"] == "caller")
    for _ in range(3):
        answer = gateway.call("caller", {"function": "slow"}, **{"Hearth-Deadline": "700ms"})
        assert answer.code == "request_deadline"
        gateway.wait_for(lambda: all(w["inFlight"] == 0 for w in gateway.workers()), "both to be free", timeout=8)
    assert worker in [w["worker"] for w in gateway.workers()], "the caller's worker was not killed for it"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Response(b'{', content_type='application/json')", "answered with what is not application/json"),
        ("Response(b'\\xff', content_type='text/plain')", "answered with what is not text/plain"),
    ],
)
def test_an_answer_that_is_not_what_it_says_is_the_other_functions_fault(gateway, answer, text):
    gateway.deploy("caller", CALLS, "network: true\n")
    gateway.deploy(
        "odd",
        "from hearth_runtime import Response\nclass Model:\n    def predict(self, input, context):\n"
        f"        return {answer}\n",
    )
    assert text in gateway.call("caller", {"function": "odd"}).json["text"]


def test_without_the_network_a_function_calls_nobody(gateway):
    gateway.deploy("caller", CALLS)
    answer = gateway.call("caller", {"function": "length"})
    assert answer.status == 500 and "add 'network: true'" in answer.body.decode()
