"""The pictures of docs/policies.md: each knob at two or more values on one small trace, by `hearth replay --plot`."""

import os
import random
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEARTH = os.environ.get("HEARTH_BINARY", str(ROOT / ".build/release/hearth"))
PICTURES = ROOT / "docs/pictures"


def poisson(rng, rate, begin, end):
    """Arrivals at random, `rate` a second."""
    time = begin
    while (time := time + rng.expovariate(rate)) < end:
        yield time


def burst(rng):
    """Twenty-five minutes: a request a second, two minutes of twelve a second, then less and less."""
    for begin, end, rate in ((0, 300, 1), (300, 420, 12), (420, 720, 2), (720, 1500, 0.5)):
        for time in poisson(rng, rate, begin, end):
            yield time, "model", rng.uniform(0.3, 0.7)


def spikes(rng):
    """Fifteen minutes: a request a second, and every minute and a half a crowd of twenty within a second."""
    for time in poisson(rng, 1, 0, 900):
        yield time, "model", rng.uniform(0.3, 0.7)
    for crowd in range(45, 900, 90):
        for _ in range(20):
            yield crowd + rng.random(), "model", rng.uniform(0.3, 0.7)


def crowds(rng):
    """Fifteen minutes: every three minutes a crowd of twenty within a second, and nothing between."""
    for crowd in range(45, 900, 180):
        for _ in range(20):
            yield crowd + rng.random(), "model", rng.uniform(0.3, 0.7)


def habits(rng):
    """A day: a job every half hour, and people in two shifts."""
    for number in range(48):
        yield number * 1800 + rng.uniform(0, 5), "every-half-hour", 2.0
    for begin, end in ((8 * 3600, 12 * 3600), (13 * 3600, 17 * 3600)):
        for time in poisson(rng, 1 / 240, begin, end):
            yield time, "people", rng.uniform(0.5, 3)


def office(rng):
    """Two days, from midnight: people from eight to six."""
    for day in range(2):
        for time in poisson(rng, 1 / 60, day * 86400 + 8 * 3600, day * 86400 + 18 * 3600):
            yield time, "model", rng.uniform(0.5, 3)
    # The trace begins at midnight.
    yield 0, "model", 0.1


def crowd(rng):
    """An hour: twenty functions, each called every two minutes or so."""
    for number in range(20):
        for time in poisson(rng, 1 / 120, 0, 3600):
            yield time, f"f{number}", rng.uniform(0.2, 2)


#: Traffic by the windows alone: many requests a worker, so that no queue hides what they decide.
WINDOWS = "max-concurrency=8,target-in-flight=0.5"
CUT = f"{WINDOWS},keep-alive=forever,downscale-stabilization=30s"

SUDDEN = f"{CUT},window=20s"


def pair(knob, first, second, base=""):
    """Two policies that differ in one knob."""
    return [f"{base},{knob}={value}".lstrip(",") for value in (first, second)]


PLOTS = {
    "keep-alive": (habits, [f"keep-alive={kind}" for kind in ("10m", "forever", "adaptive", "cost", "learned")], []),
    "cold-start-cost": (habits, [f"keep-alive=learned,cold-start-cost={cost}" for cost in ("2m", "20m", "2h")], []),
    "min-workers": (burst, pair("min-workers", 0, 3, "keep-alive=1m"), []),
    "max-workers": (burst, pair("max-workers", 100, 4), []),
    "initial-workers": (spikes, pair("initial-workers", 0, 10, "keep-alive=5m"), []),
    "activation-scale": (crowds, pair("activation-scale", 1, 8, "keep-alive=20s"), []),
    "buffer-workers": (spikes, pair("buffer-workers", 0, 10, "keep-alive=20s"), []),
    "max-concurrency": (burst, pair("max-concurrency", 1, 4), []),
    "target-in-flight": (burst, pair("target-in-flight", 4, 1, "max-concurrency=4"), []),
    "max-queue-length": (burst, pair("max-queue-length", 100, 5, "max-workers=4"), []),
    "window": (burst, pair("window", "20s", "5m", f"{WINDOWS},panic-threshold=100000%"), []),
    "tick": (burst, pair("tick", "2s", "30s", f"{WINDOWS},panic-window=30s"), []),
    "panic": (burst, pair("panic-threshold", "200%", "100000%", f"{WINDOWS},window=2m"), []),
    "upscale-stabilization": (spikes, pair("upscale-stabilization", "0s", "10s", "keep-alive=20s"), []),
    "downscale-stabilization": (burst, pair("downscale-stabilization", "30s", "5m", "keep-alive=forever"), []),
    "max-upscale-factor": (burst, pair("max-upscale-factor", 10, 1.2, f"{WINDOWS},tick=6s"), []),
    "max-downscale-factor": (burst, pair("max-downscale-factor", 0, 0.75, f"{SUDDEN},tick=15s,panic-window=15s"), []),
    "tolerance": (burst, pair("downscale-tolerance", 0.05, 0.5, f"{CUT},downscale-stabilization=0s"), []),
    "warm-windows": (office, ["keep-alive=2m", "WARM"], []),
    "workers-memory": (crowd, ["keep-alive=10m"], ["--workers-memory", "8GiB"]),
}  # fmt: skip

WARM = """scaling:
  keep-alive: 2m
  warm-windows: [{cron: 0 8 * * *, duration: 10h, workers: 1}]
"""


def main():
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("warm-windows at eight for 10h").write_text(WARM)
        for name, (trace, policies, options) in PLOTS.items():
            rows = sorted(trace(random.Random(5)))
            # A Monday, midnight.
            lines = [f"{1_735_516_800 + time:.3f},{function},{duration:.3f}" for time, function, duration in rows]
            path = Path(f"{trace.__name__}.csv")
            path.write_text("timestamp,function,duration\n" + "\n".join(lines) + "\n")
            arguments = [HEARTH, "replay", str(path), "--plot", str(PICTURES / f"{name}.svg"), "--start-time", "4s"]
            for policy in policies:
                arguments += ["--policy", "warm-windows at eight for 10h" if policy == "WARM" else policy]
            print(f"\n{name}")
            print(subprocess.run([*arguments, *options], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
