"""`make bench-http`: the request path beside nginx and HAProxy, and a Python function beside other model servers.

All front ends stand before the same worker process. What is compared runs in turns within one run; medians are given.
Prints tables and writes Benchmarks/results/http.json.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import load
from bench import BODY, ROOT, Client, cpu_name, quantile
from front_ends import FrontEnd, deploy_upstream, start_forwarder, start_haproxy, start_nginx
from gateway import Gateway
from peers import PEERS

CONNECTIONS = (1, 32, 256, 1000)
LENGTH = "class Model:\n    def predict(self, input, context):\n        return {'length': len(input['text'])}\n"
MEBIBYTE = b"x" * (1 << 20)


def medians(rows):
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def in_turns(front_ends, rounds, measure):
    """Name to the medians of `measure`, which takes one front end; every round takes all of them once."""
    found = {front_end.name: [] for front_end in front_ends}
    for _ in range(rounds):
        for front_end in front_ends:
            found[front_end.name].append(measure(front_end))
    return {name: medians(rows) for name, rows in found.items()}


def added_latency(front_ends, upstream, rounds, count=2000):
    """p50 of one connection, in microseconds, through each and on the worker's socket itself."""
    targets = {"worker's socket": (upstream, "/")}
    targets |= {f.name: (("127.0.0.1", f.port), f.path) for f in front_ends}
    clients = {name: Client(*target) for name, target in targets.items()}
    found = {name: [] for name in targets}
    for _ in range(rounds):
        for name, client in clients.items():
            found[name].append(quantile([client.call()[0] for _ in range(count)], 0.5) * 1e6)
    for client in clients.values():
        client.close()
    return {name: round(statistics.median(rows), 1) for name, rows in found.items()}


def idle_memory(front_end, count):
    """Bytes for each idle connection that has served a request."""
    before = front_end.pss_bytes()
    request = f"GET {front_end.path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    clients = []
    try:
        for number in range(count):
            client = socket.create_connection(
                ("127.0.0.1", front_end.port), source_address=(f"127.0.0.{2 + number % 8}", 0), timeout=20
            )
            client.sendall(request)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            clients.append(client)
        time.sleep(1)
        return (front_end.pss_bytes() - before) / count
    finally:
        for client in clients:
            client.close()


def measure_front_ends(options, gateway, upstream, folder):
    loops = max(1, os.cpu_count() // 2)
    hearth = FrontEnd("hearth", gateway.process, gateway.address[1], "/functions/upstream")
    front_ends = [hearth]
    small, large, close = (
        load.script(folder, BODY),
        load.script(folder, MEBIBYTE),
        load.script(folder, BODY, close=True),
    )
    try:
        front_ends.append(start_nginx(folder, upstream, loops))
        front_ends.append(start_haproxy(folder, upstream, loops))
        # First of all: memory that load has left behind would be taken for that of the connections.
        result = {"idle_connection_kib": {f.name: idle_memory(f, options.idle) / 1024 for f in front_ends}, "load": {}}
        front_ends.append(start_forwarder(upstream))
        result["one_connection_p50_us"] = added_latency(front_ends, upstream, options.rounds)
        for connections in CONNECTIONS:
            result["load"][connections] = in_turns(
                front_ends, options.rounds, lambda f, c=connections: load.run(f, c, options.seconds, small)
            )
        uploads = in_turns(front_ends, options.rounds, lambda f: load.run(f, 8, options.seconds, large))
        result["upload_mib_per_second"] = {name: row["requests_per_second"] for name, row in uploads.items()}
        result["new_connections_per_second"] = {
            name: row["requests_per_second"]
            for name, row in in_turns(front_ends, options.rounds, lambda f: load.run(f, 32, 2, close)).items()
        }
        for front_end in front_ends:
            front_end.path += "large" if front_end.path == "/" else "/large"
        downloads = in_turns(front_ends, options.rounds, lambda f: load.run(f, 8, options.seconds, load.script(folder)))
        result["download_mib_per_second"] = {name: row["requests_per_second"] for name, row in downloads.items()}
        for front_end in front_ends:
            front_end.path = front_end.path.removesuffix("large").rstrip("/") or "/"
        return result
    finally:
        for front_end in front_ends[1:]:
            front_end.stop()


def measure_peers(options, gateway, folder):
    """The same trivial function: one Python process each, in turns of the gateway and each peer."""
    hearth = FrontEnd("hearth", gateway.process, gateway.address[1], "/functions/length")
    lua = load.script(folder, BODY)
    result = {}
    for peer in PEERS:
        front_end = peer.start(ROOT / ".cache/peers", BODY)
        if front_end is None:
            continue
        try:
            row = {}
            for connections in (1, 32):
                load.run(front_end, connections, 2, lua)
                found = in_turns(
                    [hearth, front_end],
                    options.rounds,
                    lambda f, c=connections: load.run(f, c, options.seconds, lua),
                )
                row[connections] = {"hearth": found["hearth"], "peer": found[peer.name]}
            result[peer.name] = row
        finally:
            front_end.stop()
    return result


def print_tables(result):
    print(f"{result['machine']}, Linux {result['kernel']}, {result['date']}, {result['rounds']} turns\n")
    if front := result.get("front_ends"):
        names = list(front["load"][CONNECTIONS[0]])
        print("| connections | front end | req/s | of nginx | p50 µs | p99 µs | p99.9 µs | CPU s per 1,000 |")
        print("|---|---|---|---|---|---|---|---|")
        for connections, rows in front["load"].items():
            for name, row in rows.items():
                share = row["requests_per_second"] / rows["nginx"]["requests_per_second"]
                print(
                    f"| {connections} | {name} | {row['requests_per_second']:,.0f} | {share:.2f} "
                    f"| {row['p50_us']:,.0f} | {row['p99_us']:,.0f} | {row['p999_us']:,.0f} "
                    f"| {row['cpu_s_per_1000']:.4f} |"
                )
        print(f"\n| | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
        for title, key, form in (
            ("p50 of one connection, µs", "one_connection_p50_us", "{:.1f}"),
            ("1 MiB bodies up, MiB/s", "upload_mib_per_second", "{:,.0f}"),
            ("1 MiB bodies down, MiB/s", "download_mib_per_second", "{:,.0f}"),
            ("new connections/s", "new_connections_per_second", "{:,.0f}"),
            ("an idle connection, KiB", "idle_connection_kib", "{:.1f}"),
        ):
            found = (form.format(front[key][name]) if name in front[key] else "" for name in names)
            print(f"| {title} | {' | '.join(found)} |")
        direct = front["one_connection_p50_us"]["worker's socket"]
        print(f"\nThe worker's socket itself: {direct} µs")
    if peers := result.get("peers"):
        print("\n| peer | c=1 req/s | hearth | c=32 req/s | hearth | ratio at 32 | p50 at 1, µs | hearth |")
        print("|---|---|---|---|---|---|---|---|")
        for name, row in peers.items():
            one, many = row[1], row[32]
            ratio = many["hearth"]["requests_per_second"] / many["peer"]["requests_per_second"]
            print(
                f"| {name} | {one['peer']['requests_per_second']:,.0f} | {one['hearth']['requests_per_second']:,.0f} "
                f"| {many['peer']['requests_per_second']:,.0f} | {many['hearth']['requests_per_second']:,.0f} "
                f"| {ratio:.1f} | {one['peer']['p50_us']:.0f} | {one['hearth']['p50_us']:.0f} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of everything that is compared")
    parser.add_argument("--seconds", type=int, default=3, help="length of each run of wrk")
    parser.add_argument("--idle", type=int, default=9000, help="idle connections of which the memory is measured")
    parser.add_argument("--skip", choices=["peers", "front-ends"], help="leave one half out")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))
    gateway = Gateway(event_loops=0)
    result = {
        "machine": cpu_name(), "date": time.strftime("%Y-%m-%d"), "kernel": platform.release(),
        "rounds": options.rounds,
    }  # fmt: skip
    try:
        scaling = "{max-workers: 1, max-concurrency: 1000, max-queue-length: 4000}"
        deploy_upstream(gateway, folder, "upstream", scaling)
        gateway.deploy("length", LENGTH, "scaling: {max-workers: 1, max-queue-length: 4000}\n")
        for name in ("upstream", "length"):
            assert gateway.request(f"/functions/{name}", BODY).status == 200
        worker = next(w["worker"] for w in gateway.workers() if w["function"] == "upstream")
        if options.skip != "front-ends":
            upstream = f"{gateway.data}/run/{worker}/http.sock"
            result["front_ends"] = measure_front_ends(options, gateway, upstream, folder)
        if options.skip != "peers":
            result["peers"] = measure_peers(options, gateway, folder)
    finally:
        gateway.close()
        shutil.rmtree(folder, ignore_errors=True)
    target = ROOT / "Benchmarks/results/http.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print_tables(result)
    print(f"\nwritten to {target.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
