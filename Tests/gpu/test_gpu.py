"""`make test-gpu`: many PyTorch models over the memory of one GPU.

Needs a machine with an NVIDIA GPU, and an interpreter TORCH_PYTHON that has torch and safetensors. HEARTH_MODELS names
the folder with `gen/gpu_models.py`, which makes the weights; they are kept in HEARTH_GPU_WEIGHTS. With
HEARTH_GPU=simulated all but CUDA's own calls are tried without a GPU, with tiny models.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gateway import ROOT, Gateway

SIMULATED = os.environ.get("HEARTH_GPU") == "simulated"
PYTHON = os.environ.get("TORCH_PYTHON", sys.executable)
WEIGHTS = Path(os.environ.get("HEARTH_GPU_WEIGHTS", ROOT / ".cache/gpu-weights"))
#: A small model and how many of it, and a large one.
SMALL, LARGE = ("llama-tiny", "gpt2-tiny") if SIMULATED else ("llama-1.1b", "llama-7b")
COPIES = int(os.environ.get("HEARTH_GPU_COPIES", "20"))
#: What models may take of the GPU: of the small ones some seven, or the large one and one more.
BUDGET = 1 << 20 if SIMULATED else 18 << 30
QUESTION = {"tokens": [1, 5, 9, 4, 2, 7]}


@pytest.fixture(scope="module")
def weights():
    """The names of all models, their weights made."""
    names = [f"{SMALL}-{number}" for number in range(COPIES)]
    large = [] if SIMULATED else [f"{LARGE}-0"]
    script = Path(os.environ["HEARTH_MODELS"]) / "gen/gpu_models.py"
    for shape, copies, made in ((SMALL, COPIES, names), (LARGE, 1, large)):
        if not all((WEIGHTS / name / "config.json").exists() for name in made):
            subprocess.run([PYTHON, script, WEIGHTS, shape, "--copies", str(copies)], check=True)
    return names, large


@pytest.fixture(scope="module")
def gateway(weights, tmp_path_factory):
    settings = {"device_memory": str(BUDGET), "python": PYTHON}
    if SIMULATED:
        settings["simulated"] = {"devices": 1, "memory": "1GiB"}
    gateway = Gateway(**settings)
    folder = tmp_path_factory.mktemp("llama")
    site = "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))"
    path = subprocess.run([PYTHON, "-c", site], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "handler.py").write_text((ROOT / "Tests/gpu/function/handler.py").read_text())
    (folder / "function.yaml").write_text(
        "name: llama\nhandler: handler.py:Llama\nresources: {gpu: 1, cpu: 0}\nmodels: []\n"
        f"env: {{TORCH_SITE: {path}}}\ntimeouts: {{cold-start-timeout: 5m}}\n"
    )
    gateway.cli("deploy", str(folder))
    names, large = weights
    for name in names + large:
        gateway.cli("models", "add", "llama", name, str(WEIGHTS / name))
    yield gateway
    gateway.close()


def ask(gateway, model, value=None):
    answer = gateway.request(f"/functions/llama/models/{model}", json.dumps(value or QUESTION).encode(), timeout=300)
    assert answer.status == 200, answer.body
    return answer


def in_use(gateway):
    """Bytes of the GPU that are in use, as the driver counts them; without one, as the ledger does."""
    if SIMULATED:
        row = gateway.admin_request("GET", "/v1/devices").json[-1]
        return row["grantedBytes"] + row["overheadBytes"]
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) << 20


def test_models_over_the_budget_answer_as_before_and_the_driver_counts_no_more(gateway, weights):
    names, large = weights
    samples, ends = [], threading.Event()

    def watch():
        while not ends.wait(0.2):
            samples.append(in_use(gateway))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        first = {name: ask(gateway, name).json["tokens"] for name in names + large}
        assert len({tuple(tokens) for tokens in first.values()}) > len(first) // 2, "the models differ"
        generator = random.Random(5)
        states = []
        for name in generator.choices(names + large, k=5 * len(first)):
            answer = ask(gateway, name)
            assert answer.json["tokens"] == first[name], name
            states.append(answer.fields["hearth-model-state"])
    finally:
        ends.set()
        watcher.join()
    print({state: states.count(state) for state in set(states)}, f"at most {max(samples) / 2**30:.2f} GiB in use")
    assert states.count("restored") > 5
    assert max(samples) <= BUDGET


def test_a_restore_is_a_copy(gateway, weights):
    names, _ = weights
    rates = []
    for name in names:
        ask(gateway, name)
    for name in names[:5]:
        restored = ask(gateway, name)
        if restored.fields["hearth-model-state"] == "restored":
            rates.append(ask(gateway, name, {"bandwidth": True}).json)
    assert rates, "some came back from the host's memory"
    best = max(rate["restored"] / rate["pinned_copy"] for rate in rates)
    print([f"{rate['restored'] / 1e9:.1f} of {rate['pinned_copy'] / 1e9:.1f} GB/s" for rate in rates])
    assert SIMULATED or best >= 0.8


def test_a_killed_process_gives_its_memory_back(gateway, weights):
    names, _ = weights
    ask(gateway, names[0])
    pid = next(row["pid"] for row in gateway.workers())
    os.kill(pid, 9)
    deadline = time.monotonic() + 30
    while gateway.admin_request("GET", "/v1/devices").json[-1]["grantedBytes"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask(gateway, names[1]).fields["hearth-model-state"] == "loaded"
