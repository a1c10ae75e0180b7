"""Policies: what they say, why they decide, and trying them on one's own traffic."""

import concurrent.futures
import csv
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from gateway import HEARTH, PATIENCE, Gateway, write_function

SLEEPER = """
import time, os

class Model:
    def predict(self, input, context):
        time.sleep(input or 0)
        return os.getpid()
"""

LARGE = "resources: {memory: 300MiB}\n"

#: Takes what it declares, so that measuring it changes nothing.
LARGE_SLEEPER = (
    SLEEPER
    + """
    def load(self, context):
        self.held = b"x" * (270 << 20)
"""
)


@pytest.fixture
def small():
    """A gateway whose workers may take half a gibibyte together."""
    running = Gateway(workers_memory="512MiB")
    yield running
    running.close()


def knobs(gateway, name):
    return {row["name"]: row for row in json.loads(gateway.cli("policy", name, "--json").stdout)}


def decisions(gateway, name):
    return json.loads(gateway.cli("why", name, "--json").stdout)


def test_every_knob_of_function_yaml_and_the_command_line_is_shown_with_its_source(shared):
    spec = """
scaling:
  target-in-flight: 0.7
  window: 30s
  panic-threshold: 150%
  downscale-stabilization: 0s
  warm-windows:
    - {cron: 0 8 * * mon-fri, duration: 10h, workers: 2}
    - {cron: "30 12 * * sat", duration: 1h}
"""
    shared.deploy("known", spec=spec)
    shared.cli("policy", "known", "--keep-alive", "learned", "--cold-start-cost", "10m")
    rows = knobs(shared, "known")
    assert rows["target-in-flight"]["value"] == "0.7" and rows["target-in-flight"]["source"] == "function.yaml"
    assert rows["panic-threshold"]["value"] == "150%"
    assert rows["warm-windows"]["value"] == "0 8 * * mon-fri for 10h workers 2; 30 12 * * sat for 1h workers 1"
    assert (rows["keep-alive"]["value"], rows["keep-alive"]["source"]) == ("learned", "live")
    assert rows["tick"]["source"] == "default"
    text = shared.cli("policy", "known").stdout
    assert re.search(r"cold-start-cost +10m +live .*a duration such as", text)
    help_text = subprocess.run([HEARTH, "policy", "--help"], capture_output=True, text=True, check=True).stdout
    for name in rows:
        if name != "max-concurrency":
            assert f"--{name} " in help_text, f"{name} cannot be changed from the command line"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--target-in-flight", "5"), ("--panic-threshold", "2"), ("--panic-window", "2h"), ("--tick", "1h"),
        ("--warm-windows", "0 8 * * * for 30s workers 1"), ("--warm-windows", "61 8 * * * for 1h workers 1"),
        ("--warm-windows", "0 0 30 2 * for 1h workers 1"), ("--keep-alive", "sometimes"), ("--keep-alive", "-5m"),
        ("--max-downscale-factor", "1"), ("--max-upscale-factor", "nan"), ("--upscale-tolerance", "inf"),
        ("--activation-scale", "0"), ("--window", "99999999999999999999h"), ("--initial-workers", "101"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_and_changes_nothing(shared, option, value):
    shared.deploy("refused")
    before = knobs(shared, "refused")
    result = shared.cli("policy", "refused", f"{option}={value}", check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: ") and len(result.stderr) > 20
    assert knobs(shared, "refused") == before


def test_a_warm_window_that_is_open_keeps_workers_and_survives_a_restart(gateway):
    gateway.deploy("warm", spec="scaling: {keep-alive: 100ms}\n")
    gateway.cli("policy", "warm", "--warm-windows", "* * * * * for 5m workers 2")
    gateway.wait_for(lambda: len(gateway.workers()) == 2, "two workers")
    gateway.kill()
    gateway.start()
    gateway.wait_for(lambda: len(gateway.workers()) == 2, "two workers")
    assert decisions(gateway, "warm")[-1]["reason"] == "a warm window is open"
    gateway.cli("policy", "warm", "--reset", "warm-windows")
    gateway.wait_for(lambda: not gateway.workers(), "no worker")


def test_initial_workers_start_with_the_deploy(gateway):
    gateway.deploy("initial", spec="scaling: {initial-workers: 2}\n")
    gateway.wait_for(lambda: [worker["state"] for worker in gateway.workers()] == ["idle", "idle"], "two workers")
    assert gateway.call("initial").start == "hot"


def test_why_tells_each_start_and_stop_with_what_was_seen(gateway):
    gateway.deploy("reasons", SLEEPER, "scaling: {keep-alive: 300ms, max-workers: 3, window: 3s, panic-window: 2s}\n")
    assert "Nothing was decided yet" in gateway.cli("why", "reasons").stdout
    gateway.call("reasons")
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: gateway.call("reasons", 0.5), range(10)))
    gateway.wait_for(lambda: not gateway.workers(), "no worker", timeout=90)
    rows = decisions(gateway, "reasons")
    assert rows[0]["action"] == "started 1 worker" and rows[0]["reason"] == "a request came and no worker ran"
    grown = [row for row in rows if "requests wait, longer than a start takes" in row["reason"]]
    # One decision, or two when the first came before all requests were there.
    assert sum(int(row["action"].split()[1]) for row in grown) == 2
    assert all(row["observation"]["waiting"] > 0 and row["observation"]["workers"] >= 1 for row in grown)
    assert grown[-1]["limitedBy"] in ("max-workers", None)
    assert rows[-1]["action"].startswith("stopped") and "keep-alive is over" in rows[-1]["reason"]
    assert json.loads(gateway.cli("why", "reasons", "--last", "1", "--json").stdout) == rows[-1:]
    text = gateway.cli("why", "reasons").stdout.splitlines()
    assert len(text) == len(rows)
    assert re.match(r"\d\d:\d\d:\d\dZ?  started 1 worker: a request came and no worker ran  \[0 workers,", text[0])
    missing = gateway.cli("why", "reason", check=False)
    assert missing.returncode == 1 and "Did you mean 'reasons'?" in missing.stderr


def test_a_lasting_load_grows_the_pool_by_the_in_flight_target(gateway):
    gateway.deploy(
        "target", SLEEPER,
        "scaling: {max-concurrency: 8, target-in-flight: 2, max-workers: 3, tick: 200ms, panic-window: 1s, window: 2s}\n",
    )  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(gateway.call, "target", 4) for _ in range(6)]
        gateway.wait_for(lambda: len(gateway.workers()) == 3, "three workers")
        assert all(call.result().status == 200 for call in calls)
    reason = next(row["reason"] for row in decisions(gateway, "target") if "in flight over" in row["reason"])
    assert re.search(r"requests in flight over \w+ at 2 a worker ask for [23] workers", reason)


def test_recorded_requests_can_be_exported_and_replayed(gateway, tmp_path):
    gateway.deploy("recorded", SLEEPER, "scaling: {keep-alive: 200ms}\n")
    began = time.time()
    for pause in (0, 0.1, 0.6):
        time.sleep(pause)
        assert gateway.call("recorded", 0.05).status == 200
    path = tmp_path / "recorded.csv"
    gateway.cli("trace", "export", "recorded", "--output", str(path))
    rows = list(csv.DictReader(path.open()))
    assert [row["start"] for row in rows] == ["cold", "hot", "cold"]
    assert all(row["function"] == "recorded" for row in rows)
    assert began - 1 < float(rows[0]["timestamp"]) < time.time() + 1
    assert all(0.04 < float(row["duration"]) < 5 * PATIENCE for row in rows)
    assert float(rows[0]["waited"]) > 0 and float(rows[1]["waited"]) < 1 * PATIENCE
    # It is on disk: a restart keeps it, and what comes after is added.
    assert gateway.terminate() == 0
    gateway.start()
    gateway.call("recorded", 0.05)
    assert len(gateway.cli("trace", "export", "recorded").stdout.splitlines()) == 5
    result = json.loads(
        subprocess.run(
            [HEARTH, "replay", str(path), "--policy", "keep-alive=200ms", "--policy", "keep-alive=10m", "--json",
             "--start-time", "50ms", "--plot", str(tmp_path / "plot.svg")],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert [row["coldStarts"] for row in result] == [2, 1]
    assert [row["requests"] for row in result] == [3, 3]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    gateway.cli("delete", "recorded")
    gateway.deploy("recorded")
    assert len(gateway.cli("trace", "export", "recorded").stdout.splitlines()) == 1, "a new function has no past"


def test_replay_names_what_is_wrong_with_a_trace_or_a_policy(tmp_path):
    def replay(*arguments):
        return subprocess.run([HEARTH, "replay", *arguments], capture_output=True, text=True, check=False)

    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,function,duration\n1,a,1\nyesterday,a,1\n2,a,1\n")
    assert "line 3: 'yesterday' is not a time; left out" in replay(str(trace)).stderr
    strict = replay(str(trace), "--strict")
    assert strict.returncode == 1 and "Line 3 of the trace is not understood" in strict.stderr
    assert "Did you mean 'keep-alive'?" in replay(str(trace), "--policy", "keepalive=1m").stderr
    assert replay(str(trace), "--policy", str(tmp_path / "none.yaml")).returncode == 1
    policy = tmp_path / "policy.yaml"
    policy.write_text("scaling: {keep-alive: 1s}\ntimeouts: {drain-timeout: 5s}\n")
    assert replay(str(trace), "--policy", str(policy)).returncode == 0
    policy.write_text("scaling: {keep-alive: 1s, max-wrkers: 3}\n")
    assert "Did you mean 'max-workers'?" in replay(str(trace), "--policy", str(policy)).stderr
    text = replay(str(trace), "--compare", "--csv").stdout.splitlines()
    assert len(text) == 6 and all(line.count(",") == text[0].count(",") for line in text)
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 100)
    assert "is not a trace" in replay(str(tmp_path / "noise")).stderr
    assert replay(str(tmp_path)).returncode == 1


def test_an_idle_worker_makes_room_for_another_function(small):
    small.deploy("first", SLEEPER, LARGE)
    small.deploy("second", SLEEPER, LARGE)
    assert small.call("first").start == "zygote"
    assert small.call("second").start == "zygote"
    assert [worker["function"] for worker in small.workers() if worker["state"] == "idle"] == ["second"]
    assert decisions(small, "first")[-1]["reason"] == "idle, and another function needs its memory"
    assert small.call("first").start == "zygote"


def test_a_worker_that_can_never_fit_is_refused_with_the_numbers(small):
    small.deploy("huge", SLEEPER, "resources: {memory: 2GiB}\n")
    answer = small.call("huge")
    assert answer.status == 507 and answer.code == "memory_exhausted"
    assert "a worker takes 2 GiB, and workers-memory is 512 MiB" in answer.json["error"]["message"]


def test_a_busy_worker_is_never_pushed_out_but_yields_to_one_that_waits_too_long(small):
    small.deploy("busy", LARGE_SLEEPER, LARGE + "scaling: {max-workers: 1}\n")
    small.deploy("waiting", LARGE_SLEEPER, LARGE + "scaling: {max-model-wait: 5s}\n")
    stop = threading.Event()
    answers = []

    def load():
        while not stop.is_set():
            answers.append(small.call("busy", 0.3, timeout=120))

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        small.wait_for(lambda: len(answers) > 2, "the busy one to be busy")
        began = time.monotonic()
        assert small.call("waiting", timeout=120).status == 200
    finally:
        stop.set()
        for client in clients:
            client.join()
    # A worker in use is not taken before its time.
    assert 5 < time.monotonic() - began < 30 * PATIENCE
    assert {answer.status for answer in answers} == {200}
    assert any("another function has waited too long" in row["reason"] for row in decisions(small, "busy"))


def test_many_functions_at_once_all_start_a_few_at_a_time():
    gateway = Gateway(starts_max=2)
    try:
        names = [f"burst-{number}" for number in range(12)]
        for name in names:
            gateway.deploy(name, "import time\nclass Model:\n    def load(self, context):\n        time.sleep(0.3)\n"
                                 "    def predict(self, input, context):\n        return 1\n")  # fmt: skip
        most = 0
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(gateway.call, name, timeout=60) for name in names]
            while not all(call.done() for call in calls):
                loading = [
                    worker for worker in gateway.workers() if worker["state"] == "starting" and worker.get("pid")
                ]
                most = max(most, len(loading))
        assert [call.result().status for call in calls] == [200] * 12
        assert 1 <= most <= 2
    finally:
        gateway.close()


def test_measured_memory_is_shown(gateway):
    gateway.deploy("measured", "class Model:\n    def load(self, context):\n        self.held = b'x' * (64 << 20)\n"
                               "    def predict(self, input, context):\n        return len(self.held)\n")  # fmt: skip
    gateway.call("measured")
    worker = gateway.wait_for(
        lambda: next((row for row in gateway.workers() if row.get("memoryBytes")), None), "a measurement", timeout=40
    )
    assert 64 << 20 < worker["memoryBytes"] < 256 << 20
    assert "MiB" in gateway.cli("workers").stdout


def test_the_arrival_log_is_bounded_and_off_the_path(gateway):
    gateway.deploy("counted")
    for _ in range(200):
        gateway.call("counted")
    path = Path(gateway.data, "arrivals", "counted")
    gateway.wait_for(lambda: path.exists() and path.stat().st_size == 200 * 32, "two hundred records")


def test_a_client_that_leaves_an_export_harms_nobody(gateway):
    gateway.deploy("exported")
    gateway.call("exported")
    folder = Path(gateway.data, "arrivals")
    gateway.wait_for((folder / "exported").exists, "the arrival log")
    (folder / "exported").write_bytes((folder / "exported").read_bytes() * 600_000)
    for _ in range(5):
        with socket.create_connection(gateway.admin, timeout=10) as connection:
            connection.sendall(
                b"GET /v1/functions/exported/trace HTTP/1.1\r\nHost: h\r\n"
                b"Authorization: Bearer " + gateway.token.encode() + b"\r\n\r\n"
            )
            assert connection.recv(1024).startswith(b"HTTP/1.1 200")
    assert gateway.call("exported").status == 200
    assert gateway.process.poll() is None


def test_export_of_an_unknown_function_leaves_the_file_alone(shared, tmp_path):
    path = tmp_path / "kept.csv"
    path.write_text("kept")
    result = shared.cli("trace", "export", "nobody", "--output", str(path), check=False)
    assert result.returncode == 1 and "No function 'nobody' is deployed" in result.stderr
    assert path.read_text() == "kept"


def test_a_new_version_gets_the_room_of_the_one_before(small):
    spec = LARGE + "scaling: {min-workers: 1}\n"
    small.deploy("fat", LARGE_SLEEPER, spec)
    first = json.loads(small.cli("list", "--json").stdout)[0]["version"]
    # Both do not fit: after max-model-wait the old one makes room.
    small.deploy("fat", LARGE_SLEEPER + "\n# changed\n", LARGE + "scaling: {min-workers: 1, max-model-wait: 5s}\n")
    assert json.loads(small.cli("list", "--json").stdout)[0]["version"] != first
    assert small.call("fat", 0, timeout=60).status == 200
    small.wait_for(lambda: len(small.workers()) == 1, "one worker")


def test_a_deploy_that_finds_no_room_fails_and_holds_up_nobody(small):
    small.deploy("guaranteed", LARGE_SLEEPER, LARGE + "scaling: {min-workers: 1}\n")
    with tempfile.TemporaryDirectory() as folder:
        write_function(Path(folder), "late", LARGE_SLEEPER, LARGE + "scaling: {min-workers: 1}\n"
                                                                  "timeouts: {cold-start-timeout: 3s}\n")  # fmt: skip
        result = small.cli("deploy", folder, check=False)
    assert result.returncode == 1 and "no room" in result.stderr
    assert small.call("guaranteed", 0).status == 200


def test_learned_idle_times_survive_a_restart(gateway):
    gateway.deploy("learner", spec="scaling: {keep-alive: cost, cold-start-cost: 1h}\n")
    for _ in range(12):
        gateway.call("learner")
        time.sleep(0.2)
    # Twelve rests of a fifth of a second: the cheapest keep-alive is little more than a second.
    gateway.wait_for(lambda: not gateway.workers(), "no worker")
    assert gateway.terminate() == 0
    gateway.start()
    gateway.call("learner")
    gateway.wait_for(lambda: not gateway.workers(), "no worker")
