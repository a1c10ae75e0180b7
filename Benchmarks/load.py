"""Load by wrk: requests a second, latencies, and what the front end spent on them."""

import re
import subprocess

UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}


def script(folder, body=None, close=False):
    """A wrk script that posts a body (or gets), and reports the 99.9th percentile too."""
    name = f"load-{len(body or b'')}-{close}"
    lines = []
    if body is not None:
        (folder / f"{name}.body").write_bytes(body)
        lines += [
            'wrk.method = "POST"',
            f'local file = io.open("{folder}/{name}.body", "rb")',
            'wrk.body = file:read("*a")',
            "file:close()",
            'wrk.headers["Content-Type"] = "application/json"',
        ]
    if close:
        lines.append('wrk.headers["Connection"] = "close"')
    lines.append(
        "done = function(summary, latency, requests)\n"
        '  io.write(string.format("P999 %f\\n", latency:percentile(99.9)))\n'
        "end"
    )
    target = folder / f"{name}.lua"
    target.write_text("\n".join(lines) + "\n")
    return target


def run(front_end, connections, seconds, lua):
    """One run. Fails when any answer was not 2xx, or a connection broke."""
    before = front_end.cpu_seconds()
    output = subprocess.check_output(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(lua), front_end.url], text=True
    )
    spent = front_end.cpu_seconds() - before
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    if failed or (broken and int(broken[1]) + int(broken[3]) + int(broken[4]) > 0):
        raise SystemExit(f"{front_end.url} failed under load: {output}")
    times = {name: float(v) * UNITS[unit] for name, v, unit in re.findall(r"(50|99)% +([\d.]+)(us|ms|s)", output)}
    count = int(re.search(r"(\d+) requests in", output)[1])
    return {
        "requests_per_second": float(re.search(r"Requests/sec: +([\d.]+)", output)[1]),
        "p50_us": times["50"],
        "p99_us": times["99"],
        "p999_us": float(re.search(r"P999 ([\d.]+)", output)[1]),
        "cpu_s_per_1000": spent / count * 1000,
    }
