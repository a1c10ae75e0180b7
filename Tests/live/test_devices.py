"""Devices: which there are, who gets which, and what counts against their memory."""

import concurrent.futures
import subprocess
import time
from pathlib import Path

import pytest
from gateway import PATIENCE, Gateway

#: Says what its worker sees.
SEES = """
import os
import time


class Model:
    def load(self, model):
        self.loaded = model.device if hasattr(model, "device") else None
        return bytearray(1 << 20)

    def predict(self, input, context):
        time.sleep((input or {}).get("sleep", 0))
        return {
            "device": context.device, "model": self.loaded, "visible": os.environ["CUDA_VISIBLE_DEVICES"],
            "pid": os.getpid(),
        }
"""

MODELS = {"weights/a": "1", "weights/b": "2", "weights/c": "3"}
ON_GPU = "resources: {gpu: 1}\n"
MANY = "models:\n" + "".join(f"  - {{path: {path}, memory: 40MiB}}\n" for path in MODELS)


@pytest.fixture
def gateways():
    """Starts gateways with these settings."""
    started = []

    def start(environment=None, **settings):
        started.append(Gateway(environment=environment, **settings))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()


def devices(gateway):
    return {row["device"]: row for row in gateway.admin_request("GET", "/v1/devices").json}


def call(gateway, model, value=None, name="many"):
    answer = gateway.request(f"/functions/{name}/models/{model}", (value or "{}").encode())
    assert answer.status == 200, answer.body
    return answer


def test_simulated_devices_are_named_as_such_and_fill_evenly(gateways):
    gateway = gateways(simulated={"devices": 2, "memory": "100MiB"})
    gateway.deploy("many", SEES, MANY + ON_GPU, MODELS)
    seen = [call(gateway, model).json for model in ("a", "b", "c")]
    assert [one["device"] for one in seen] == [one["model"] for one in seen]
    assert {one["device"] for one in seen[:2]} == {"simulated:0", "simulated:1"}
    assert {one["visible"] for one in seen} == {""}, "no GPU of the machine's"
    rows = devices(gateway)
    assert rows["simulated:0"]["model"] == rows["simulated:1"]["model"] == "simulated"
    assert sorted(rows[name]["grantedBytes"] >> 20 for name in ("simulated:0", "simulated:1")) == [40, 80]
    assert rows["cpu"]["grantedBytes"] == 0 and "simulated:1" in gateway.cli("devices").stdout
    listing = gateway.admin_request("GET", "/v1/functions/many/models").json
    assert {tuple(row["devices"]) for row in listing} == {("simulated:0",), ("simulated:1",)}
    assert {row["device"] for row in gateway.workers()} == {"simulated:0", "simulated:1"}


def test_models_on_one_device_share_a_process_and_others_do_not(gateways):
    gateway = gateways(simulated={"devices": 1, "memory": "100MiB"})
    gateway.deploy("many", SEES, MANY + ON_GPU, MODELS)
    assert call(gateway, "a").json["pid"] == call(gateway, "b").json["pid"]
    gateway.deploy("apart", SEES, MANY + ON_GPU + "isolation: process\n", MODELS)
    assert call(gateway, "a", name="apart").json["pid"] != call(gateway, "b", name="apart").json["pid"]
    assert devices(gateway)["cpu"]["workers"] == 2, "processes of their own count on the machine as well"


def test_without_a_device_a_function_that_needs_one_is_refused(gateways):
    gateway = gateways()
    for spec, words in (
        (ON_GPU, "this machine has none"),
        ("resources: {gpu: 2}\n", "0 or 1"),
        ("resources: {gpu-memory: 1GiB}\n", "no GPU"),
        (MANY + "isolation: some\n", "process or shared"),
        ("isolation: shared\n", "this function has none"),
    ):
        with pytest.raises(AssertionError) as refusal:
            gateway.deploy("plain", SEES, spec, MODELS)
        assert words in str(refusal.value), spec
    gateway.deploy("plain", SEES)
    seen = gateway.call("plain", {}).json
    assert seen.get("device") == "cpu" and seen["visible"] == "", seen


@pytest.mark.parametrize("simulated", [{"devices": 17}, {"memory": "much"}, {"bandwidth": "20GiB"}, {"speed": 1}])
def test_what_simulated_devices_may_not_be(simulated):
    with pytest.raises(AssertionError, match=r"hearth\.yaml:1:"):
        Gateway(simulated=simulated)


def test_a_function_of_one_model_gets_a_device_and_gives_it_back(gateways):
    gateway = gateways(simulated={"devices": 1, "memory": "100MiB"})
    for name in ("one", "two"):
        gateway.deploy(name, SEES, "resources: {gpu: 1, gpu-memory: 80MiB}\n")
    assert gateway.call("one").json["device"] == "simulated:0"
    rows = devices(gateway)
    assert (rows["simulated:0"]["grantedBytes"], rows["simulated:0"]["workers"]) == (80 << 20, 1)
    assert rows["cpu"]["workers"] == 1
    assert gateway.call("two").status == 200, "the other makes room"
    assert [row["function"] for row in gateway.workers()] == ["two"]
    gateway.deploy("huge", SEES, "resources: {gpu: 1, gpu-memory: 200MiB}\n")
    answer = gateway.call("huge")
    assert (answer.status, answer.code) == (507, "memory_exhausted")
    assert "device-memory of simulated:0 is 100 MiB" in answer.json["error"]["message"]
    for name in ("two", "one"):
        gateway.cli("delete", name)
    gateway.wait_for(lambda: not gateway.workers(), "all workers to end")
    assert {row["grantedBytes"] for row in devices(gateway).values()} == {0}


def test_a_load_takes_as_long_as_the_device_needs(gateways):
    gateway = gateways(simulated={"devices": 1, "memory": "1GiB", "bandwidth": "40MiB/s"})
    gateway.deploy("many", SEES, "models: weights\n" + ON_GPU, {"weights/large": b" " * (20 << 20)})
    began = time.monotonic()
    call(gateway, "large")
    assert time.monotonic() - began >= 0.5
    began = time.monotonic()
    call(gateway, "large")
    assert time.monotonic() - began < 0.4 * PATIENCE


def test_a_model_asked_for_a_lot_gets_a_copy_on_the_other_device(gateways):
    gateway = gateways(simulated={"devices": 2, "memory": "100MiB"})
    gateway.deploy("many", SEES, MANY + ON_GPU + "scaling: {max-workers: 2}\n", MODELS)
    call(gateway, "a")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        seen = list(pool.map(lambda _: call(gateway, "a", '{"sleep": 0.1}').json["device"], range(60)))
    assert set(seen) == {"simulated:0", "simulated:1"}
    row = next(row for row in gateway.admin_request("GET", "/v1/functions/many/models").json if row["model"] == "a")
    assert sorted(row["devices"]) == ["simulated:0", "simulated:1"]


# NVML, by a library that stands in for it.

NVML = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int numbers[2] = {0, 1};
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &numbers[index]; return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
  snprintf(text, size, "GPU-%d", *(int *)device); return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { snprintf(text, size, "Stand-in"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%d", getenv("STAND_IN"), *(int *)device);
  FILE *file = fopen(path, "r");
  memory[0] = 1536ull << 20; memory[2] = 0;
  if (file) { if (fscanf(file, "%llu", &memory[2]) != 1) return 999; fclose(file); }
  memory[1] = memory[0] - memory[2];
  return 0;
}
struct process { unsigned pid; unsigned long long used; unsigned instance, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
  char path[4096];
  snprintf(path, sizeof path, "%s/processes", getenv("STAND_IN"));
  FILE *file = fopen(path, "r");
  *count = 0;
  if (!file) return 0;
  while (fscanf(file, "%u %llu", &found[*count].pid, &found[*count].used) == 2) ++*count;
  fclose(file);
  return 0;
}
"""


@pytest.fixture
def stand_in(tmp_path):
    """A folder whose files say how many bytes of each GPU are in use, and the environment that makes it count."""
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    return tmp_path, {"LD_LIBRARY_PATH": str(tmp_path), "STAND_IN": str(tmp_path)}


def use(folder, number, mebibytes):
    """Says what is in use of a GPU, all at once."""
    Path(folder, "new").write_text(str(mebibytes << 20))
    Path(folder, "new").rename(folder / str(number))


def test_gpus_are_found_and_workers_see_their_own(gateways, stand_in):
    folder, environment = stand_in
    use(folder, 1, 600)
    gateway = gateways(environment)
    rows = devices(gateway)
    assert [(name, row.get("model")) for name, row in rows.items()][1:] == [
        ("cuda:0", "Stand-in"),
        ("cuda:1", "Stand-in"),
    ]
    assert rows["cuda:0"]["budgetBytes"] == 1 << 30, "all but what a driver needs"
    assert rows["cuda:1"]["overheadBytes"] == 600 << 20, "what others use there is not free"
    gateway.deploy("many", SEES, MANY + ON_GPU, MODELS)
    seen = call(gateway, "a").json
    assert (seen["device"], seen["model"], seen["visible"]) == ("cuda:0", "cuda:0", "GPU-0")
    assert gateway.workers()[0]["device"] == "cuda:0"


def test_memory_of_a_gpu_counts_as_free_when_it_is_seen_to_be(gateways, stand_in):
    folder, environment = stand_in
    for number in (0, 1):
        use(folder, number, 0)
    gateway = gateways(environment, device_memory="100MiB", simulated={"devices": 0})
    use(folder, 1, 100)
    gateway.deploy("one", SEES, "resources: {gpu: 1, gpu-memory: 80MiB}\n")
    gateway.deploy("two", SEES, "resources: {gpu: 1, gpu-memory: 80MiB}\n")
    assert gateway.call("one").status == 200
    use(folder, 0, 80)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.call, "two")
        gateway.wait_for(lambda: not any(w["function"] == "one" for w in gateway.workers()), "the first to make room")
        # Its process is gone, and the driver has not freed what it had.
        time.sleep(1)
        assert not waiting.done()
        row = devices(gateway)["cuda:0"]
        assert (row["grantedBytes"], row["overheadBytes"]) == (0, 80 << 20)
        note = gateway.wait_for(lambda: devices(gateway)["cuda:0"].get("note"), "it to be told", timeout=20)
        assert note.startswith("80 MiB that worker w-") and "not free" in gateway.cli("devices").stdout
        use(folder, 0, 0)
        assert waiting.result().status == 200
    assert "note" not in devices(gateway)["cuda:0"]


# Tiers.

#: Prints what becomes of its models. Their files say what goes wrong.
TIERS = """
class Model:
    def load(self, model):
        print("load", model.name)
        return {"name": model.name, "orders": model.path.read_text(), "on": model.device}

    def offload(self, model):
        print("offload", model["name"])
        if "stuck" in model["orders"]:
            raise RuntimeError("cannot leave")
        return {**model, "on": "host"}

    def restore(self, model):
        print("restore", model["name"])
        if "lost" in model["orders"]:
            raise RuntimeError("cannot come back")
        assert model["on"] == "host"
        return {**model, "on": "device again"}

    def unload(self, model):
        print("unload", model["name"])

    def predict(self, input, context):
        return {"name": context.model["name"], "on": context.model["on"]}
"""


def tiers(gateways, memory="100MiB", spec="", files=MODELS, **settings):
    """A function whose models can be kept, on a device for two of them."""
    gateway = gateways(simulated={"devices": 1, "memory": memory}, **settings)
    gateway.deploy("many", TIERS, MANY + ON_GPU + spec, files)
    return gateway


def states(gateway, *names):
    return [call(gateway, name).fields["hearth-model-state"] for name in names]


def rows(gateway):
    return {row["model"]: row for row in gateway.admin_request("GET", "/v1/functions/many/models").json}


def said(gateway):
    return [" ".join(line.split()[-2:]) for line in gateway.functions_log("many").splitlines()]


def test_a_model_that_makes_room_is_kept_and_restored(gateways):
    gateway = tiers(gateways)
    assert states(gateway, "a", "b", "c", "a", "a") == ["loaded", "loaded", "loaded", "restored", "hit"]
    assert call(gateway, "a").json == {"name": "a", "on": "device again"}
    found = rows(gateway)
    assert {name: row["tier"] for name, row in found.items()} == {"a": "device", "b": "host", "c": "device"}
    assert (found["a"]["loads"], found["a"]["restores"], found["b"]["restores"]) == (2, 1, 0)
    assert [line for line in said(gateway) if line.startswith(("offload", "restore"))] == [
        "offload a", "offload b", "restore a",
    ]  # fmt: skip


def test_what_is_kept_has_a_budget(gateways):
    gateway = tiers(gateways, host_cache="50MiB")
    # Only one of them fits: the one that left first goes.
    assert states(gateway, "a", "b", "c", "a", "b") == ["loaded", "loaded", "loaded", "restored", "loaded"]
    gateway.wait_for(lambda: "unload b" in said(gateway), "the kept one to go")


@pytest.mark.parametrize("way", [{"host_cache": "0"}, {"spec": "scaling: {keep-alive: 10m}\n"}])
def test_models_are_not_kept_where_that_is_not_wanted(gateways, way):
    gateway = tiers(gateways, **way)
    assert states(gateway, "a", "b", "c", "a") == ["loaded"] * 4
    assert "offload a" not in said(gateway) and "unload a" in said(gateway)


def test_a_model_that_cannot_be_kept_or_restored_is_loaded_again(gateways):
    gateway = tiers(gateways, files={"weights/a": "stuck", "weights/b": "lost", "weights/c": ""})
    assert states(gateway, "a", "b", "c", "a") == ["loaded"] * 4
    assert "unload a" in said(gateway)
    assert states(gateway, "b") == ["loaded"], "its restore has failed, and that of its weights has not"
    assert call(gateway, "b").json["on"] == "simulated:0" and "restore b" in said(gateway)


def test_what_is_kept_goes_when_its_memory_is_needed_or_its_function_goes(gateways):
    gateway = tiers(gateways, workers_memory="400MiB")
    states(gateway, "a", "b", "c")
    assert rows(gateway)["a"]["tier"] == "host"
    gateway.wait_for(lambda: devices(gateway)["cpu"]["overheadBytes"] >= 40 << 20, "what is kept to count")
    gateway.deploy("large", SEES, "resources: {memory: 370MiB}\n")
    assert gateway.call("large").status == 200
    assert rows(gateway)["a"]["tier"] == "disk"
    gateway.cli("delete", "large")
    gateway.cli("delete", "many")
    gateway.wait_for(lambda: not gateway.workers(), "all workers to end")


def test_a_version_that_is_taken_over_from_keeps_nothing(gateways):
    gateway = tiers(gateways)
    states(gateway, "a", "b", "c")
    before = {row["pid"] for row in gateway.workers()}
    gateway.deploy("many", TIERS + "\n# new\n", MANY + ON_GPU, MODELS)
    gateway.wait_for(lambda: not before & {row["pid"] for row in gateway.workers()}, "the old version to end")
    gateway.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), "its process to end")
    assert rows(gateway)["a"]["tier"] == "disk"


def test_two_that_leave_at_once_are_kept_within_the_budget(gateways):
    models = {f"weights/m{number}": "" for number in range(4)}
    gateway = gateways(simulated={"devices": 1, "memory": "100MiB"}, host_cache="60MiB")
    sizes = {"weights/m3": 90}
    entries = "".join(f"  - {{path: {path}, memory: {sizes.get(path, 40)}MiB}}\n" for path in models)
    gateway.deploy("many", TIERS, "models:\n" + entries + ON_GPU, models)
    states(gateway, "m0", "m1", "m3")
    gateway.wait_for(lambda: [row["tier"] for row in rows(gateway).values()].count("host") == 1, "one to be kept")
    gateway.wait_for(lambda: "unload m0" in said(gateway) or "unload m1" in said(gateway), "the other to go")


def test_what_cannot_be_kept_throws_nothing_out(gateways):
    gateway = tiers(gateways, host_cache="50MiB")
    states(gateway, "a", "b", "c")
    assert rows(gateway)["a"]["tier"] == "host" or rows(gateway)["b"]["tier"] == "host"
    kept = next(name for name, row in rows(gateway).items() if row["tier"] == "host")
    gateway.deploy("plain", SEES, MANY + ON_GPU, MODELS)
    for model in ("a", "b", "c", "a"):
        call(gateway, model, name="plain")
    resident = {name for name, row in rows(gateway).items() if row["tier"] == "host"}
    assert len(resident) == 1 and (kept in resident or said(gateway).count(f"unload {kept}") == 1)
    assert states(gateway, next(iter(resident))) == ["restored"]


def test_a_model_asked_for_while_it_leaves_is_not_there_twice(gateways):
    slow = TIERS.replace('print("offload", model["name"])', 'print("offload", model["name"])\n        time.sleep(1)')
    gateway = gateways(simulated={"devices": 1, "memory": "100MiB"})
    gateway.deploy("many", "import time\n" + slow, MANY + ON_GPU, MODELS)
    states(gateway, "a", "b")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        third = pool.submit(call, gateway, "c")
        gateway.wait_for(lambda: "offload a" in said(gateway), "a to leave")
        again = pool.submit(call, gateway, "a")
        assert third.result().status == again.result().status == 200
    for model in ("b", "c", "a", "b"):
        assert call(gateway, model).json["name"] == model
    lines = said(gateway)
    held = {
        name: lines.count(f"load {name}") - lines.count(f"unload {name}") for name in ("a", "b", "c")
    }  # fmt: skip
    gateway.wait_for(lambda: max(held.values()) <= 1, "copies to go")


def test_a_model_that_is_removed_is_kept_no_more(gateways, tmp_path):
    gateway = tiers(gateways)
    (tmp_path / "d").write_text("")
    gateway.cli("models", "add", "many", "d", str(tmp_path / "d"), "--memory", "40MiB")
    states(gateway, "d", "a", "b")
    assert rows(gateway)["d"]["tier"] == "host"
    gateway.cli("models", "remove", "many", "d")
    gateway.wait_for(lambda: "unload d" in said(gateway), "it to go")


def test_full_devices_take_turns_to_make_room(gateways):
    gateway = gateways(simulated={"devices": 2, "memory": "50MiB"})
    files = {f"weights/m{number}": "" for number in range(8)}
    entries = "".join(f"  - {{path: {path}, memory: 40MiB}}\n" for path in files)
    gateway.deploy("many", SEES, "models:\n" + entries + ON_GPU, files)
    seen = [call(gateway, f"m{number}").json["device"] for number in range(8)]
    assert abs(seen.count("simulated:0") - seen.count("simulated:1")) <= 2, seen


def test_what_a_process_has_of_a_gpu_is_measured(gateways, stand_in):
    folder, environment = stand_in
    use(folder, 1, 1500)
    gateway = gateways(environment)
    gateway.deploy("one", SEES, "resources: {gpu: 1, gpu-memory: 300MiB}\nscaling: {initial-workers: 1}\n")
    pid = gateway.workers()[0]["pid"]
    (folder / "processes").write_text(f"1 5\n{pid} {420 << 20}\n")
    assert gateway.call("one").status == 200
    gateway.wait_for(lambda: devices(gateway)["cuda:0"]["grantedBytes"] == 420 << 20, "it to be measured", timeout=20)


def test_what_others_use_of_a_gpu_is_not_hidden_by_a_load(gateways, stand_in):
    folder, environment = stand_in
    use(folder, 0, 60)
    use(folder, 1, 100)
    gateway = gateways(environment, device_memory="100MiB")
    slow = "import time\n" + SEES.replace("return bytearray(1 << 20)", "time.sleep(2)")
    for name in ("one", "two"):
        gateway.deploy(name, slow, "resources: {gpu: 1, gpu-memory: 40MiB}\n")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(gateway.call, "one")
        gateway.wait_for(lambda: devices(gateway)["cuda:0"]["workers"] == 1, "the first to load")
        second = pool.submit(gateway.call, "two")
        time.sleep(0.5)
        row = devices(gateway)["cuda:0"]
        assert (row["workers"], row["overheadBytes"]) == (1, 60 << 20)
        assert first.result().status == 200
        use(folder, 0, 40)
        assert second.result().status == 200
