"""Keep-alive policies on public traces, by `hearth replay`: cold starts against idle memory.

The traces are not part of the repository: HEARTH_TRACES names the folder that holds azure-functions-2019/ and
genai-requests/. Prints tables in Markdown and writes Benchmarks/results/policy.json.
"""

import csv
import datetime
import itertools
import json
import math
import os
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEARTH = os.environ.get("HEARTH_BINARY", str(ROOT / ".build/release/hearth"))
TRACES = Path(os.environ.get("HEARTH_TRACES", ROOT / "../shared/traces"))
AZURE = TRACES / "azure-functions-2019/500/invocations.csv"
GENAI = TRACES / "genai-requests/lora_request_trace.csv"

BASELINE = "keep-alive=10m"

#: Each policy along its one parameter.
CURVES = {
    "fixed": [f"keep-alive={time}" for time in ("2m", "5m", "10m", "20m", "40m", "80m")],
    "adaptive": [f"keep-alive=adaptive,cold-start-cost={cost}" for cost in ("5m", "10m", "20m", "1h", "2h")],
    "cost": [f"keep-alive=cost,cold-start-cost={cost}" for cost in ("5m", "10m", "20m", "40m", "80m")],
    "learned": [
        f"keep-alive=learned,cold-start-cost={cost}" for cost in ("2m", "5m", "10m", "20m", "1h", "2h", "4h", "12h")
    ],
    "forever": ["keep-alive=forever"],
}


def replay(trace, policies, *options):
    """One row of figures for each policy."""
    arguments = [HEARTH, "replay", str(trace), "--json", *options]
    for policy in policies:
        arguments += ["--policy", policy]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return {row["policy"]: row for row in json.loads(result.stdout)}


def gaps(trace):
    """The idle times of each function of a trace, if a worker of it takes any number of requests, and the last one."""
    arrivals = defaultdict(list)
    if trace == AZURE:
        folder = trace.parent
        durations = {
            row["HashFunction"]: float(row["Average"]) / 1000
            for row in csv.DictReader((folder / "durations.csv").open())
        }
        with trace.open() as file:
            rows = csv.reader(file)
            minutes = len(next(rows)) - 4
            for row in rows:
                for minute, text in enumerate(row[4:]):
                    count = int(text)
                    for number in range(count):
                        start = minute * 60 + (number + 0.5) * 60 / count
                        arrivals[row[2]].append((start, durations.get(row[2], 1.0)))
        end = minutes * 60.0
    else:
        for row in csv.DictReader(trace.open()):
            if row["checkpoint_model_version_id"] and row["exec_time_seconds"]:
                start = datetime.datetime.fromisoformat(row["gmt_create"]).timestamp()
                arrivals[row["checkpoint_model_version_id"]].append((start, float(row["exec_time_seconds"])))
        end = max(start for requests in arrivals.values() for start, _ in requests)
    inner, last = [], []
    for requests in arrivals.values():
        requests.sort()
        busy_until = None
        for start, duration in requests:
            if busy_until is not None and start > busy_until:
                inner.append(start - busy_until)
            busy_until = max(busy_until or 0, start + duration)
        last.append(max(0.0, end - busy_until))
    return inner, len(arrivals)


def oracle(trace):
    """Keeps a worker through a gap exactly if the gap is shorter than a threshold: (cold starts, idle seconds) each."""
    inner, functions = gaps(trace)
    inner.sort()
    points = []
    for threshold in (30, 60, 120, 300, 600, 1200, 2400, 4800, 9600):
        kept = [gap for gap in inner if gap < threshold]
        points.append((functions + len(inner) - len(kept), sum(kept)))
    return points


def at(points, x):
    """The second coordinate where the first is `x`, on straight lines between the logarithms; None outside."""
    points = sorted(points)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= x <= x1:
            share = 0 if x0 == x1 else (math.log(x) - math.log(x0)) / (math.log(x1) - math.log(x0))
            return math.exp(math.log(y0) * (1 - share) + math.log(y1) * share)
    return None


def table(name, trace, suffix, *options):
    policies = [policy + suffix for curve in CURVES.values() for policy in curve]
    rows = replay(trace, policies, *options)
    base = rows[BASELINE + suffix]
    base_cold, base_idle = base["coldStarts"], base["idleWorkerSeconds"]
    print(f"\n### {name}\n\nfixed 10m: {base_cold} cold starts of {base['requests']} requests, "
          f"{base_idle / 3600:.0f} worker-hours idle\n")  # fmt: skip
    print("| policy | cold starts | of fixed 10m | idle | of fixed 10m | wait p99 | starts | ahead |")
    print("|---|---|---|---|---|---|---|---|")
    for policy, row in rows.items():
        print(f"| `{policy.removesuffix(suffix)}` | {row['coldStarts']} | {row['coldStarts'] / base_cold:.2f} "
              f"| {row['idleWorkerSeconds'] / 3600:.0f} h | {row['idleWorkerSeconds'] / base_idle:.2f} "
              f"| {row['waitSeconds']['p99']:.2f} s | {row['starts']} | {row['prewarms']} |")  # fmt: skip
    curves = {
        curve: [(rows[p + suffix]["coldStarts"], rows[p + suffix]["idleWorkerSeconds"]) for p in policies]
        for curve, policies in CURVES.items()
        if len(policies) > 1
    }
    if suffix:
        curves["oracle without starts ahead"] = oracle(trace)
    print("\n| policy | idle at fixed 10m's cold starts | cold starts at fixed 10m's idle |\n|---|---|---|")
    summary = {}
    for curve, points in curves.items():
        idle = at(points, base_cold)
        cold = at([(y, x) for x, y in points], base_idle)
        summary[curve] = {"idle": idle and idle / base_idle, "cold": cold and cold / base_cold}
        cells = ["-" if value is None else f"{value:.2f} ×" for value in summary[curve].values()]
        print(f"| {curve} | {cells[0]} | {cells[1]} |")
    return {"rows": rows, "summary": summary}


def main():
    for trace in (AZURE, GENAI):
        if not trace.exists():
            raise SystemExit(f"{trace} is not there: set HEARTH_TRACES to the folder of the traces (docs/policies.md).")
    one, slow = ",max-concurrency=1000", ("--start-time", "20s")
    azure, genai = "Azure Functions, 500 functions, 8 hours", "GenAI requests, 86 models, 23 days"
    results = {
        "azure-500, one worker": table(f"{azure}, one worker a function", AZURE, one),
        "genai, one worker": table(f"{genai}, one worker a model", GENAI, one, *slow),
        "azure-500": table(f"{azure}, one request a worker", AZURE, ""),
        "genai": table(f"{genai}, one request a worker", GENAI, "", *slow),
    }
    path = ROOT / "Benchmarks/results/policy.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1))
    print(f"\n{datetime.date.today()}, {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
