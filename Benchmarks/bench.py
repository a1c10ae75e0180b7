"""`make bench`: cold starts, hot requests and memory of a gateway, beside nginx in front of the same worker.

Prints a table and writes Benchmarks/results/bench.json. What is compared is measured in turns within one run, and
medians of the turns are given. Needs nginx, wrk and gcc (installed by scripts/setup-bench).
"""

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests/live"))
os.environ.setdefault("HEARTH_BINARY", str(ROOT / ".build/release/hearth"))

from front_ends import start_nginx  # noqa: E402
from gateway import Gateway, write_function  # noqa: E402

TRIVIAL = "class Model:\n    def predict(self, input, context):\n        return input\n"
BODY = json.dumps({"text": "x" * 240}).encode()
CONNECTIONS = (1, 32, 256)


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


def latencies(targets, rounds, count):
    """Median over the rounds of each target's p50 and p99 at one connection. Targets: name to (address, path)."""
    clients = {name: Client(*target) for name, target in targets.items()}
    found = {name: [] for name in targets}
    for _ in range(rounds):
        for name, client in clients.items():
            times = [client.call()[0] for _ in range(count)]
            found[name].append((quantile(times, 0.5), quantile(times, 0.99)))
    for client in clients.values():
        client.close()
    return {
        name: {
            "p50_us": round(statistics.median(p50 for p50, _ in rows) * 1e6, 1),
            "p99_us": round(statistics.median(p99 for _, p99 in rows) * 1e6, 1),
        }
        for name, rows in found.items()
    }


def throughput(targets, rounds, seconds, folder):
    """Requests a second, p50 and p99 by wrk at each number of connections, in turns. Targets: name to (port, path)."""
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(BODY.decode())}\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    results = {}
    for connections in CONNECTIONS:
        rows = {name: [] for name in targets}
        for _ in range(rounds):
            for name, (port, path) in targets.items():
                rows[name].append(wrk(f"http://127.0.0.1:{port}{path}", connections, seconds, script))
        for name, found in rows.items():
            results.setdefault(name, {})[str(connections)] = {
                key: statistics.median(row[key] for row in found) for key in found[0]
            }
    return results


def wrk(url, connections, seconds, script):
    output = subprocess.check_output(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url], text=True
    )
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output) or re.search(r"Socket errors: (.+)", output)
    if failed:
        raise SystemExit(f"{url} failed under load: {output}")
    unit = {"us": 1, "ms": 1000, "s": 1_000_000}
    times = {
        name: float(value) * unit[suffix] for name, value, suffix in re.findall(r"(50|99)% +([\d.]+)(us|ms|s)", output)
    }
    rate = float(re.search(r"Requests/sec: +([\d.]+)", output)[1])
    return {"requests_per_second": rate, "p50_us": times["50"], "p99_us": times["99"]}


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


def cpu_name():
    with open("/proc/cpuinfo") as file:
        match = re.search(r"model name\s*: (.+)", file.read())
    return f"{match[1] if match else platform.machine()}, {os.cpu_count()} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of everything that is compared")
    parser.add_argument("--seconds", type=int, default=3, help="length of each wrk run")
    parser.add_argument("--cold", type=int, default=30, help="cold starts of each kind")
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="hearth-bench-", dir="/tmp"))
    gateway = Gateway(event_loops=0)
    nginx = None
    result = {"machine": cpu_name(), "date": time.strftime("%Y-%m-%d"), "kernel": platform.release()}
    try:
        time.sleep(1)
        result["gateway_idle_pss_mib"] = round(pss(gateway.process.pid), 1)
        deploy_all(gateway, folder)
        picture = (ROOT / "functions/classify-image/example/cat.jpg").read_bytes()
        result["cold_ms"] = measure_cold(gateway, options.cold, picture)
        upstream = worker_socket(gateway)
        nginx = start_nginx(folder, upstream, max(1, os.cpu_count() // 2))
        nginx_port = nginx.port
        port = gateway.address[1]
        result["one_connection"] = latencies(
            {
                "worker's socket": (upstream, "/"),
                "hearth": (gateway.address, "/functions/upstream"),
                "nginx": (("127.0.0.1", nginx_port), "/"),
                "hearth, Python": (gateway.address, "/functions/trivial"),
            },
            options.rounds,
            2000,
        )
        result["load"] = throughput(
            {
                "hearth": (port, "/functions/upstream"),
                "nginx": (nginx_port, "/"),
                "hearth, Python": (port, "/functions/trivial"),
            },
            options.rounds,
            options.seconds,
            folder,
        )
        result["worker_pss_mib"] = {
            "trivial": memory(gateway, "trivial"),
            "classify-image": memory(gateway, "classify-image", picture, "image/jpeg"),
        }
    except SystemExit:
        # What failed under load says why in one of these.
        for log in (Path(gateway.data, "gateway.log"), folder / "nginx.err"):
            if log.exists():
                print(f"{log.name}: {log.read_text()[-2000:]}", file=sys.stderr)
        raise
    finally:
        if nginx is not None:
            nginx.stop()
        gateway.close()
        shutil.rmtree(folder, ignore_errors=True)
    target = ROOT / "Benchmarks/results/bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    print(f"\nwritten to {target.relative_to(ROOT)}")


def deploy_all(gateway, folder):
    # One worker each: what is compared is the way to it.
    spec = "scaling: {max-workers: 1, max-queue-length: 2000}\n"
    gateway.deploy("trivial", TRIVIAL, spec)
    gateway.deploy("trivial-spawn", TRIVIAL, spec + "python: {start: spawn}\n")
    gateway.cli("deploy", str(ROOT / "functions/classify-image"))
    spawned = folder / "spawned"
    shutil.copytree(ROOT / "functions/classify-image", spawned)
    yaml = spawned / "function.yaml"
    yaml.write_text(yaml.read_text().replace("python:\n", "python:\n  start: spawn\n"))
    gateway.cli("deploy", str(spawned), "--name", "classify-image-spawn")
    program = folder / "upstream"
    write_function(
        program,
        "upstream",
        spec="command: [server]\nscaling: {max-workers: 1, max-concurrency: 256, max-queue-length: 2000}\n",
    )
    subprocess.check_call(["gcc", "-O2", "-o", str(program / "server"), str(ROOT / "Benchmarks/upstream.c")])
    gateway.cli("deploy", str(program))


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


def worker_socket(gateway):
    """The socket of the warm `upstream` worker."""
    client = Client(gateway.address, "/functions/upstream")
    client.call()
    client.close()
    worker = next(w["worker"] for w in gateway.workers() if w["function"] == "upstream")
    return f"{gateway.data}/run/{worker}/http.sock"


def print_table(result):
    print(f"{result['machine']}, Linux {result['kernel']}, {result['date']}\n")
    print("| cold start, ms | p50 | p99 | best |\n|---|---|---|---|")
    for name, row in result["cold_ms"].items():
        print(f"| {name} | {row['p50']} | {row['p99']} | {row['best']} |")
    print("\n| one connection, µs | p50 | p99 |\n|---|---|---|")
    for name, row in result["one_connection"].items():
        print(f"| {name} | {row['p50_us']} | {row['p99_us']} |")
    heads = " | ".join(f"c={count} req/s | p50 µs | p99 µs" for count in CONNECTIONS)
    print(f"\n| under load | {heads} |\n|---{'|---' * 3 * len(CONNECTIONS)}|")
    for name, rows in result["load"].items():
        cells = [
            f"{row['requests_per_second']:.0f} | {row['p50_us']:.0f} | {row['p99_us']:.0f}" for row in rows.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| memory, PSS MiB | |\n|---|---|")
    print(f"| gateway, no function | {result['gateway_idle_pss_mib']} |")
    for name, size in result["worker_pss_mib"].items():
        print(f"| each warm worker, {name} | {size} |")


if __name__ == "__main__":
    main()
