"""`make bench-models`: twenty models behind one endpoint, in memory for eight, beside the obvious ways to do the same.

Every contender gets the same calls, one after another; models are asked for by Zipf's law. The client knows a hit from
a miss by an LRU of its own, or from the gateway's answer, and every answer is checked. In turns, each from an empty
cache; medians. Then the GenAI trace, if HEARTH_TRACES names its folder: how often lru and gdsf miss. Prints tables and
writes Benchmarks/results/models.json.
"""

import argparse
import itertools
import json
import os
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests/live"))
os.environ.setdefault("HEARTH_BINARY", str(ROOT / ".build/release/hearth"))

from bench import cpu_name  # noqa: E402
from gateway import HEARTH, Gateway  # noqa: E402
from model_peers import model_peers  # noqa: E402

CACHE = ROOT / ".cache"
#: MiB that a model of 25 MB takes, with its interpreter where it has one of its own, as `hearth models` shows it.
MODEL_MEMORY = {"process": 36, "shared": 26}
#: MiB that the gateway's own processes take beside them.
OVERHEAD = {"process": 0, "shared": 66}
#: Their names in the table.
HOUSINGS = {"hearth, a process for each": "process", "hearth, shared": "shared"}


def zipf_calls(models, count, exponent, seed):
    """The names to call, and which of them hit in an LRU of so many places."""
    generator = random.Random(seed)
    weights = [1 / rank**exponent for rank in range(1, len(models) + 1)]
    names = list(models)
    generator.shuffle(names)
    return generator.choices(names, weights, k=count)


def hits(calls, places):
    kept = OrderedDict()
    found = []
    for name in calls:
        found.append(name in kept)
        kept[name] = None
        kept.move_to_end(name)
        if len(kept) > places:
            kept.popitem(last=False)
    return found


class Connection:
    """One connection that is kept."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, path, fields, body):
        """The seconds until the whole answer, its head and its body."""
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{fields}Content-Type: application/json\r\nContent-Length: "
        request = f"{head}{len(body)}\r\n\r\n".encode() + body
        began = time.perf_counter()
        self.socket.sendall(request)
        received = self.socket.recv(65536)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self.socket.recv(65536)
        head, rest = received[:end].decode("latin-1").lower(), received[end + 4 :]
        length = re.search(r"content-length: *(\d+)", head)
        while len(rest) < int(length[1]) if length else not rest.endswith(b"0\r\n\r\n"):
            rest += self.socket.recv(65536)
        seconds = time.perf_counter() - began
        return seconds, head, rest if length else b"".join(rest.split(b"\r\n")[1::2])


def measure(port, target, calls, is_hit, samples):
    connection = Connection(port)
    times = {True: [], False: []}
    began = time.perf_counter()
    loaded = 0
    for name, expected, sample in zip(calls, is_hit, itertools.cycle(samples), strict=False):
        path, fields = target(name)
        seconds, head, body = connection.call(path, fields, sample["body"])
        if not head.startswith("http/1.1 200"):
            raise SystemExit(f"{name}: {head} {body[:300]}")
        if json.loads(body)["digit"] != sample["digit"]:
            raise SystemExit(f"{name} reads {body} and not {sample['digit']}")
        # The gateway's cache counts bytes, and says itself what was a hit.
        state = re.search(r"hearth-model-state: (\w+)", head)
        hit = state[1] == "hit" if state else expected
        loaded += not hit
        times[hit].append(seconds * 1e3)
    return {
        "hit_ms": statistics.median(times[True]), "miss_ms": statistics.median(times[False]),
        "hit_p90_ms": sorted(times[True])[len(times[True]) * 9 // 10],
        "miss_p90_ms": sorted(times[False])[len(times[False]) * 9 // 10],
        "wall_s": time.perf_counter() - began, "loads": loaded,
    }  # fmt: skip


def hearth(models, places, calls, is_hit, samples, isolation):
    """One turn of the gateway, from an empty cache."""
    folder = Path(tempfile.mkdtemp(prefix="hearth-bench-", dir="/tmp"))
    gateway = None
    try:
        for name in ("handler.py", "requirements.txt", "warm.onnx"):
            shutil.copy(ROOT / "functions/digits" / name, folder)
        lines = (ROOT / "functions/digits/function.yaml").read_text().replace("models: weights", "models:")
        size = MODEL_MEMORY[isolation]
        entries = "".join(f"  - {{path: weights/{name}, memory: {size}MiB}}\n" for name in models)
        spec = lines.replace("models:\n", f"models:\n{entries}") + f"\nisolation: {isolation}\n"
        (folder / "function.yaml").write_text(spec)
        shutil.copytree(models_folder(), folder / "weights")
        gateway = Gateway(event_loops=0, workers_memory=f"{size * places + OVERHEAD[isolation]}MiB")
        gateway.cli("deploy", str(folder))
        result = measure(
            gateway.address[1], lambda name: (f"/functions/digits/models/{name}", ""), calls, is_hit, samples
        )
        return result
    finally:
        if gateway:
            gateway.close()
        shutil.rmtree(folder, ignore_errors=True)


def models_folder():
    return CACHE / "bench-models"


def make_models(count, megabytes):
    folder = models_folder()
    if len(list(folder.glob("*/digits.onnx"))) != count:
        shutil.rmtree(folder, ignore_errors=True)
        python = CACHE / "weights-venv/bin/python"
        maker = ROOT / "functions/digits/make_weights.py"
        options = ["--count", str(count), "--megabytes", str(megabytes)]
        subprocess.run([python, maker, CACHE / "wheels", folder, *options], check=True)
    return sorted(path.name for path in folder.iterdir())


def replay(folder):
    """The share of requests to the GenAI trace's models that miss, in per cent."""
    trace = Path(folder, "genai-requests/lora_request_trace.csv")
    found = {}
    for places, eviction in itertools.product((8, 16), ("lru", "gdsf")):
        output = subprocess.run(
            [HEARTH, "replay", trace, "--instant", "--json", "--eviction", eviction, "--worker-memory", "1GiB",
             "--workers-memory", f"{places}GiB", "--policy", "keep-alive=forever,max-workers=1"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        row = json.loads(output)[0]
        found[f"{eviction} {places}"] = round(100 * row["coldStarts"] / row["requests"], 2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=25)
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--alone", action="store_true", help="leave the other servers out")
    options = parser.parse_args()

    models = make_models(options.models, options.megabytes)
    calls = zipf_calls(models, options.calls, 1.1, seed=7)
    is_hit = hits(calls, options.places)
    samples = json.loads((ROOT / "functions/digits/example/samples.json").read_text())
    for sample in samples:
        sample["body"] = json.dumps({"pixels": sample["pixels"]}).encode()
    peers = [] if options.alone else model_peers(models_folder(), options.places)
    turns = {**{name: [] for name in HOUSINGS}, **{peer.name: [] for peer, _ in peers}}
    for _ in range(options.rounds):
        for name, isolation in HOUSINGS.items():
            turns[name].append(hearth(models, options.places, calls, is_hit, samples, isolation))
        for peer, target in peers:
            front_end = peer.start(CACHE / "peers", None)
            if front_end is None:
                continue
            try:
                turns[peer.name].append(measure(front_end.port, target, calls, is_hit, samples))
            finally:
                front_end.stop()
    table = {
        name: {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
        for name, rows in turns.items()
        if rows
    }
    result = {
        "machine": cpu_name(), "date": time.strftime("%Y-%m-%d"), "kernel": platform.release(),
        "hits": is_hit.count(True), "misses": is_hit.count(False), "rounds": options.rounds, "servers": table,
        "turns": turns,
    }  # fmt: skip
    traces = os.environ.get("HEARTH_TRACES")
    if traces:
        result["genai_misses_percent"] = replay(traces)
    target = ROOT / "Benchmarks/results/models.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['machine']}; {options.rounds} turns of {result['hits']} hits and {result['misses']} misses\n")
    print("| | hit p50 ms | hit p90 | miss p50 ms | miss p90 | 300 calls s | loads |\n|---|---|---|---|---|---|---|")
    for name, row in table.items():
        cells = [row[key] for key in ("hit_ms", "hit_p90_ms", "miss_ms", "miss_p90_ms", "wall_s")]
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + f" | {row['loads']:.0f} |")
    if traces:
        print(f"\nGenAI trace, misses in per cent: {result['genai_misses_percent']}")


if __name__ == "__main__":
    main()
