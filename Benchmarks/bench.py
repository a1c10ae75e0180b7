"""`make bench`: cold starts and memory of a gateway. `make bench-http` measures hot requests.

Prints a table and writes Benchmarks/results/bench.json.
"""

import argparse
import concurrent.futures
import json
import os
import platform
import re
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests/live"))
os.environ.setdefault("HEARTH_BINARY", str(ROOT / ".build/release/hearth"))

from gateway import Gateway  # noqa: E402

TRIVIAL = "class Model:\n    def predict(self, input, context):\n        return input\n"
#: As much work as a large import.
BUSY_START = (
    TRIVIAL
    + """
    def load(self, context):
        import time
        began = time.process_time()
        while time.process_time() - began < 0.1:
            pass
"""
)
BODY = json.dumps({"text": "x" * 240}).encode()


class Client:
    """One connection that sends the same request again and again and times each answer."""

    def __init__(self, address, path, body=BODY, content_type="application/json"):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.request = head.encode() + body

    def call(self):
        """Sends one request; returns the seconds until its whole answer, the status and the head."""
        began = time.perf_counter()
        self.socket.sendall(self.request)
        received = self.socket.recv(65536)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self.socket.recv(65536)
        head = received[:end].decode("latin-1").lower()
        length = int(re.search(r"content-length: *(\d+)", head)[1])
        while len(received) < end + 4 + length:
            received += self.socket.recv(65536)
        return time.perf_counter() - began, int(head[9:12]), head

    def close(self):
        self.socket.close()


def quantile(values, fraction):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * fraction))]


def cold_starts(gateway, name, rounds, body=BODY, content_type="application/json"):
    """Seconds from a request at zero workers to its whole answer."""
    gateway.cli("policy", name, "--keep-alive", "0s")
    times = []
    for _ in range(rounds + 1):
        gateway.wait_for(lambda: not [w for w in gateway.workers() if w["function"] == name], "zero workers")
        client = Client(gateway.address, f"/functions/{name}", body, content_type)
        seconds, status, head = client.call()
        client.close()
        assert status == 200 and ("hearth-start: zygote" in head or "hearth-start: cold" in head), head
        times.append(seconds)
    gateway.cli("policy", name, "--keep-alive", "5m")
    return times[1:]


def pss(pid):
    """Proportional set size of a process, in MiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return int(re.search(r"^Pss: +(\d+)", file.read(), re.M)[1]) / 1024


def memory(gateway, name, body=BODY, content_type="application/json"):
    """PSS of one worker and of each further one, in MiB, after a call."""
    gateway.cli("policy", name, "--min-workers", "4", "--max-workers", "4")

    def pids():
        rows = [w for w in gateway.workers() if w["function"] == name and w["state"] == "idle" and w.get("pid")]
        return [w["pid"] for w in rows] if len(rows) == 4 else None

    found = gateway.wait_for(pids, "four workers")
    client = Client(gateway.address, f"/functions/{name}", body, content_type)
    for _ in range(20):
        client.call()
    client.close()
    sizes = sorted(pss(pid) for pid in found)
    gateway.cli("policy", name, "--reset", "min-workers", "--reset", "max-workers")
    return round(statistics.median(sizes), 1)


def burst(starts_max, rounds=3, functions=40):
    """A hot function's latency while many others start at once, each with 100 ms of work, in milliseconds."""
    gateway = Gateway(event_loops=0, starts_max=starts_max)
    try:
        gateway.deploy("hot", TRIVIAL)
        names = [f"cold-{number}" for number in range(functions)]
        for name in names:
            gateway.deploy(name, BUSY_START)
        client = Client(gateway.address, "/functions/hot")
        calm = [client.call()[0] for _ in range(500)]
        times, lasted = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(functions) as pool:
                calls = [pool.submit(gateway.call, name, 1, 120) for name in names]
                while not all(call.done() for call in calls):
                    times.append(client.call()[0])
                    time.sleep(0.001)
                assert all(call.result().status == 200 for call in calls)
            lasted.append(time.perf_counter() - began)
            for name in names:
                gateway.cli("policy", name, "--keep-alive", "0s")
            gateway.wait_for(lambda: len(gateway.workers()) == 1, "the others to end")
            for name in names:
                gateway.cli("policy", name, "--keep-alive", "5m")
        return {
            "calm p99": round(quantile(calm[100:], 0.99) * 1e3, 2),
            "p50": round(quantile(times, 0.5) * 1e3, 2),
            "p99": round(quantile(times, 0.99) * 1e3, 2),
            "all started, s": round(statistics.median(lasted), 2),
        }
    finally:
        gateway.close()


def overload(seconds=5, rounds=3):
    """What a function of two workers, 50 ms a request, serves under ten times what it can, beside its most."""
    gateway = Gateway(event_loops=0)
    try:
        spec = "scaling: {max-workers: 2, min-workers: 2, max-queue-length: 20}\n"
        gateway.deploy("over", TRIVIAL.replace("return", "__import__('time').sleep(0.05); return"), spec)

        def offer(clients):
            ends = time.monotonic() + seconds
            served = [0] * clients

            def client(number):
                while time.monotonic() < ends:
                    if gateway.call("over", 1).status != 200:
                        time.sleep(0.09)
                    elif time.monotonic() < ends:
                        # What waits at the end is served after it, and does not count.
                        served[number] += 1

            with concurrent.futures.ThreadPoolExecutor(clients) as pool:
                list(pool.map(client, range(clients)))
            return sum(served) / seconds

        offer(4)
        pairs = [(offer(4), offer(60)) for _ in range(rounds)]
        peak, goodput = (statistics.median(values) for values in zip(*pairs, strict=True))
        return {"peak": round(peak, 1), "goodput": round(goodput, 1), "ratio": round(goodput / peak, 2)}
    finally:
        gateway.close()


def cpu_name():
    with open("/proc/cpuinfo") as file:
        match = re.search(r"model name\s*: (.+)", file.read())
    return f"{match[1] if match else platform.machine()}, {os.cpu_count()} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cold", type=int, default=30, help="cold starts of each kind")
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="hearth-bench-", dir="/tmp"))
    gateway = Gateway(event_loops=0)
    result = {"machine": cpu_name(), "date": time.strftime("%Y-%m-%d"), "kernel": platform.release()}
    try:
        time.sleep(1)
        result["gateway_idle_pss_mib"] = round(pss(gateway.process.pid), 1)
        deploy_all(gateway, folder)
        picture = (ROOT / "functions/classify-image/example/cat.jpg").read_bytes()
        result["cold_ms"] = measure_cold(gateway, options.cold, picture)
        result["worker_pss_mib"] = {
            "trivial": memory(gateway, "trivial"),
            "classify-image": memory(gateway, "classify-image", picture, "image/jpeg"),
        }
    finally:
        gateway.close()
        shutil.rmtree(folder, ignore_errors=True)
    result["burst_ms"] = {f"starts-max {count}": burst(count) for count in (4, 1000)}
    result["overload"] = overload()
    target = ROOT / "Benchmarks/results/bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    print(f"\nwritten to {target.relative_to(ROOT)}")


def deploy_all(gateway, folder):
    spec = "scaling: {max-workers: 1, max-queue-length: 2000}\n"
    gateway.deploy("trivial", TRIVIAL, spec)
    gateway.deploy("trivial-spawn", TRIVIAL, spec + "python: {start: spawn}\n")
    gateway.cli("deploy", str(ROOT / "functions/classify-image"))
    spawned = folder / "spawned"
    shutil.copytree(ROOT / "functions/classify-image", spawned)
    yaml = spawned / "function.yaml"
    yaml.write_text(yaml.read_text().replace("python:\n", "python:\n  start: spawn\n"))
    gateway.cli("deploy", str(spawned), "--name", "classify-image-spawn")


def measure_cold(gateway, rounds, picture):
    measured = {
        "trivial, zygote": ("trivial", BODY, "application/json"),
        "trivial, spawn": ("trivial-spawn", BODY, "application/json"),
        "classify-image, zygote": ("classify-image", picture, "image/jpeg"),
        "classify-image, spawn": ("classify-image-spawn", picture, "image/jpeg"),
    }
    return {
        title: {
            "p50": round(quantile(times, 0.5) * 1e3, 2),
            "p99": round(quantile(times, 0.99) * 1e3, 2),
            "best": round(min(times) * 1e3, 2),
        }
        for title, (name, body, kind) in measured.items()
        for times in [cold_starts(gateway, name, rounds, body, kind)]
    }


def print_table(result):
    print(f"{result['machine']}, Linux {result['kernel']}, {result['date']}\n")
    print("| cold start, ms | p50 | p99 | best |\n|---|---|---|---|")
    for name, row in result["cold_ms"].items():
        print(f"| {name} | {row['p50']} | {row['p99']} | {row['best']} |")
    columns = "calm p99 | p50 | p99 | all started, s"
    print(f"\n| a hot function while forty others start, ms | {columns} |\n|---|---|---|---|---|")
    for name, row in result["burst_ms"].items():
        print(f"| {name} | {' | '.join(str(value) for value in row.values())} |")
    overload = result["overload"]
    print(f"\n| answers a second at ten times the capacity | {overload['goodput']} |\n|---|---|")
    print(f"| the most, without overload | {overload['peak']} |\n| ratio | {overload['ratio']} |")
    print("\n| memory, PSS MiB | |\n|---|---|")
    print(f"| gateway, no function | {result['gateway_idle_pss_mib']} |")
    for name, size in result["worker_pss_mib"].items():
        print(f"| each warm worker, {name} | {size} |")


if __name__ == "__main__":
    main()
