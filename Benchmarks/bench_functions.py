"""`make bench-functions`: what each of functions/ costs, cold and hot, and what batching gains `embed`.

Prints tables and writes Benchmarks/results/functions.json.
"""

import argparse
import concurrent.futures
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import ROOT, cpu_name, pss, quantile

sys.path.insert(0, str(ROOT / "Tests/functions"))
from example import FOLDER, NAMES, Example, examples, needs
from gateway import Gateway


def calls_of(name):
    """The first example of a function, or of each of its models, by what it is called in the table."""
    if name == "speak":
        return {name: Example(name, {"request": "text.json", "answer": {}, "tolerance": 0})}
    calls = {}
    for example in examples(name):
        _, _, model = example.path.partition("/models/")
        calls.setdefault(f"{name}, {model}" if model else name, example)
    return calls


def timed(gateway, example):
    """Seconds until the whole answer, and the answer."""
    began = time.perf_counter()
    answer = example.call(gateway)
    return time.perf_counter() - began, answer


def measure(gateway, name, example, rounds):
    """Cold and hot p50 of an example in milliseconds, and the memory of its worker in MiB."""
    gateway.cli("policy", name, "--keep-alive", "0s")
    for other in needs(name):
        gateway.cli("policy", other, "--keep-alive", "10m")
    timed(gateway, example)
    cold = []
    for _ in range(rounds):
        gateway.wait_for(lambda: not [w for w in gateway.workers() if w["function"] == name], "zero workers")
        seconds, answer = timed(gateway, example)
        assert answer.start in ("zygote", "cold"), answer.start
        cold.append(seconds)
    gateway.cli("policy", name, "--keep-alive", "10m")
    hot = [timed(gateway, example)[0] for _ in range(rounds + 5)][5:]
    (pid,) = {w["pid"] for w in gateway.workers() if w["function"] == name and w["state"] == "idle"}
    taken = pss(pid)
    gateway.cli("policy", name, "--keep-alive", "0s")
    return {
        "cold_ms": quantile(cold, 0.5) * 1e3,
        "hot_ms": quantile(hot, 0.5) * 1e3,
        "memory_mib": taken,
    }


def variant(folder, name, batching):
    """A copy of `embed` under another name and with another batching."""
    target = folder / name
    target.mkdir()
    for path in FOLDER.joinpath("embed").rglob("*"):
        if path.is_file() and path.name in ("handler.py", "requirements.txt", "model.onnx", "tokenizer.json"):
            copy = target / path.relative_to(FOLDER / "embed")
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    spec = (FOLDER / "embed/function.yaml").read_text().replace("name: embed", f"name: {name}")
    spec = re.sub(r"batching:\n(  .*\n)+", batching, spec).replace("max-workers: 2", "max-workers: 1")
    (target / "function.yaml").write_text(spec)
    return target


def batching(gateway, folder, rounds, seconds):
    """Answers a second and p50 in milliseconds of `embed`, by how it batches and how many clients it has; in turns."""
    kinds = {
        "one at a time": "",
        "max-size 16, max-wait 0s": "batching: {max-size: 16, max-wait: 0s}\n",
        "max-size 16, max-wait 5ms": "batching: {max-size: 16, max-wait: 5ms}\n",
    }
    names = {}
    for number, (kind, text) in enumerate(kinds.items()):
        names[kind] = f"embed-{number}"
        gateway.cli("deploy", str(variant(folder, names[kind], text)))
        gateway.call(names[kind], {"text": "warm"}, timeout=120)
    found = {(kind, clients): [] for clients in (1, 4, 16, 32) for kind in kinds}
    for _ in range(rounds):
        for (kind, clients), rows in found.items():
            rows.append(load(gateway, names[kind], clients, seconds))
    return [
        {"batching": kind, "clients": clients, "per_second": statistics.median(row[0] for row in rows),
         "p50_ms": statistics.median(row[1] for row in rows)}
        for (kind, clients), rows in found.items()
    ]  # fmt: skip


def load(gateway, name, clients, seconds):
    end = time.perf_counter() + seconds

    def client(number):
        times = []
        while time.perf_counter() < end:
            began = time.perf_counter()
            text = f"Ranger {number} saw lions near the river at {len(times)} minutes past noon."
            assert gateway.call(name, {"text": text}, timeout=60).status == 200
            times.append(time.perf_counter() - began)
        return times

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        times = [t for part in pool.map(client, range(clients)) for t in part]
    return len(times) / seconds, quantile(times, 0.5) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="cold and hot calls of each function")
    parser.add_argument("--turns", type=int, default=5, help="turns of the ways to batch")
    parser.add_argument("--seconds", type=float, default=2, help="length of each load")
    options = parser.parse_args()
    result = {"machine": cpu_name(), "date": time.strftime("%Y-%m-%d"), "kernel": platform.release(), "functions": {}}
    gateway = Gateway(event_loops=0)
    try:
        with tempfile.TemporaryDirectory(prefix="hf-") as folder:
            for name in NAMES:
                gateway.cli("deploy", str(FOLDER / name))
            for name in NAMES:
                for label, example in calls_of(name).items():
                    result["functions"][label] = measure(gateway, name, example, options.rounds)
            result["batching"] = batching(gateway, Path(folder), options.turns, options.seconds)
    finally:
        gateway.close()
    print(f"{result['machine']}, Linux {result['kernel']}, {result['date']}\n")
    print("| function | cold, ms | hot, ms | memory of a worker, MiB |\n|---|---|---|---|")
    for name, row in sorted(result["functions"].items()):
        print(f"| {name} | {row['cold_ms']:,.0f} | {row['hot_ms']:,.1f} | {row['memory_mib']:,.0f} |")
    print("\n| embed | clients | answers/s | p50 ms |\n|---|---|---|---|")
    for row in result["batching"]:
        print(f"| {row['batching']} | {row['clients']} | {row['per_second']:,.0f} | {row['p50_ms']:.1f} |")
    target = ROOT / "Benchmarks/results/functions.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten to {target.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
