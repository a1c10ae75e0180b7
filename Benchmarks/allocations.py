"""`make check-allocations`: how many heap allocations the gateway makes for one warm request, with a limit.

Counts do not depend on how busy the machine is, so that CI can hold them. Fails when a limit is passed.
"""

import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import BODY, ROOT, TRIVIAL, Client
from front_ends import deploy_upstream
from gateway import Gateway

REQUESTS = 2000

#: Allocations for one request, warm, on one connection. Measured: 23.0 for both.
LIMITS = {"program": 25, "handler": 25}


def main():
    folder = Path(tempfile.mkdtemp(prefix="ha-", dir="/tmp"))
    library = folder / "count.so"
    subprocess.check_call(
        ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(ROOT / "Benchmarks/count_allocations.c")]
    )
    page = folder / "counter"
    page.write_bytes(bytes(16))
    os.environ.update(LD_PRELOAD=str(library), ALLOCATION_COUNTER=str(page))
    gateway = Gateway(event_loops=1)
    for name in ("LD_PRELOAD", "ALLOCATION_COUNTER"):
        del os.environ[name]
    failed = False
    try:
        with page.open("r+b") as file:
            counter = mmap.mmap(file.fileno(), 16)
        deploy_upstream(gateway, folder, "program", "{max-workers: 1}")
        gateway.deploy("handler", TRIVIAL, "scaling: {max-workers: 1}\n")
        for name, limit in LIMITS.items():
            client = Client(gateway.address, f"/functions/{name}", BODY)
            for _ in range(200):
                client.call()
            before = struct.unpack_from("Q", counter)[0]
            assert before > 1000, "nothing was counted"
            for _ in range(REQUESTS):
                client.call()
            each = (struct.unpack_from("Q", counter)[0] - before) / REQUESTS
            client.close()
            verdict = "" if each <= limit else "  TOO MANY"
            failed = failed or each > limit
            print(f"{name}: {each:.1f} allocations a request, limit {limit}{verdict}")
    finally:
        gateway.close()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
