"""Other Python model servers, each in an environment of its own, with the same trivial function and one worker.

Versions are pinned; environments are kept in .cache/peers. Each starts with access logs off, on loopback.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from front_ends import FrontEnd, free_port

FASTAPI = """
from fastapi import FastAPI, Request

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, int]:
    body = await request.json()
    return {"length": len(body["text"])}
"""

MOSEC = """
from mosec import Server, Worker


class Length(Worker):
    def forward(self, data):
        return {"length": len(data["text"])}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Length, num=1)
    server.run()
"""

LITSERVE = """
import sys

import litserve


class Length(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, request):
        return {"length": len(request["text"])}


if __name__ == "__main__":
    server = litserve.LitServer(Length(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", access_log=False,
               generate_client_file=False)
"""

BENTOML = """
import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Length:
    @bentoml.api
    async def predict(self, text: str) -> dict[str, int]:
        return {"length": len(text)}
"""

RAY = """
import os
import sys

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=100, logging_config=LoggingConfig(enable_access_log=False))
class Length:
    async def __call__(self, request: Request) -> dict:
        body = await request.json()
        return {"length": len(body["text"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 1024 * 1024,
             _temp_dir=os.environ["RAY_TMPDIR"], log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
                logging_config=LoggingConfig(enable_access_log=False))
    serve.run(Length.bind(), route_prefix="/", blocking=True)
"""

TRITON_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "length" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""

TRITON_MODEL = """
import numpy as np
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()[0].decode()
            answers.append(utils.InferenceResponse([utils.Tensor("length", np.array([len(text)], dtype=np.int32))]))
        return answers
"""


class Peer:
    """One server: what is installed, the files it needs, its command, its path and more of its environment."""

    def __init__(self, name, requirements, files, command, path="/predict", stop=signal.SIGTERM, variables=None):
        self.name = name
        self.requirements = requirements
        self.files = files
        self.command = command
        self.path = path
        self.stop = stop
        self.variables = variables or {}

    def start(self, cache, body):
        """Installs, starts and waits for the first whole answer: to this body, or to a GET.

        Returns a front end, or None with a word why not.
        """
        folder = cache / self.name
        python = folder / "venv/bin/python"
        marker = folder / "installed"
        if not marker.exists() or marker.read_text() != " ".join(self.requirements):
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.check_call([sys.executable, "-m", "venv", str(folder / "venv")])
            print(f"installing {' '.join(self.requirements)}", file=sys.stderr)
            installed = subprocess.run([python, "-m", "pip", "install", "-q", *self.requirements], check=False)
            if installed.returncode != 0:
                print(f"{self.name}: could not be installed, left out", file=sys.stderr)
                return None
            marker.write_text(" ".join(self.requirements))
        for path, text in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        port = free_port()
        short = Path("/tmp") / f"hp-{os.getpid()}"
        short.mkdir(exist_ok=True)
        environment = {
            **os.environ, "HOME": str(short), "TMPDIR": str(short), "RAY_TMPDIR": str(short / "r"),
            "RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(short / "b"),
            "HEARTH_PEER": self.name, **self.variables,
        }  # fmt: skip
        log = (folder / "log").open("w")
        process = subprocess.Popen(
            self.command(folder, port), cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        front_end = PeerFrontEnd(self, process, port, short)
        if not front_end.wait_ready(body):
            print(f"{self.name}: gave no answer within 60 s, left out; see {folder}/log", file=sys.stderr)
            front_end.stop()
            return None
        return front_end


class PeerFrontEnd(FrontEnd):
    def __init__(self, peer, process, port, short):
        super().__init__(peer.name, process, port, peer.path)
        self.peer = peer
        self.short = short

    def pids(self):
        """Whatever carries the peer's mark in its environment: some put their workers in groups of their own."""
        mark = f"HEARTH_PEER={self.name}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def cpu_seconds(self):
        return 0.0

    def wait_ready(self, body):
        for _ in range(600):
            if self.process.poll() is not None:
                return False
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                method = "GET" if body is None else "POST"
                connection.request(method, self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status == 200 and (json.loads(answer.read())["length"] or body is None):
                    return True
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                pass
            time.sleep(0.1)
        return False

    def stop(self):
        self.process.send_signal(self.peer.stop)
        for _ in range(100):
            if self.process.poll() is not None and not self.pids():
                break
            time.sleep(0.1)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.short, ignore_errors=True)


def triton_command(folder, port):
    site = next((folder / "venv/lib").glob("python3.*")) / "site-packages"
    triton = site / "pytriton/tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(triton / f"python_backend_stubs/{version}/triton_python_backend_stub", triton / "backends/python/")
    return [
        "env", f"PATH={folder}/venv/bin:{os.environ['PATH']}", f"PYTHONPATH={site}", str(triton / "bin/tritonserver"),
        f"--model-repository={folder}/models", f"--backend-directory={triton}/backends", "--http-address=127.0.0.1",
        f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false",
    ]  # fmt: skip


def python_command(*arguments):
    return lambda folder, port: [
        str(folder / "venv/bin/python"), *(argument.replace("PORT", str(port)) for argument in arguments)
    ]  # fmt: skip


FASTAPI_PINS = ["fastapi==0.165.0", "uvicorn[standard]==0.54.0"]
RAY_PINS = ["ray[serve]==2.60.0"]
#: One process, without an access log, on the fast event loop and parser.
UVICORN = python_command(
    "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "PORT", "--workers", "1", "--no-access-log",
    "--log-level", "warning", "--loop", "uvloop", "--http", "httptools",
)  # fmt: skip

PEERS = [
    Peer("FastAPI on uvicorn", FASTAPI_PINS, {"app.py": FASTAPI}, UVICORN),
    Peer(
        "mosec",
        ["mosec==0.9.8"],
        {"app.py": MOSEC},
        python_command("app.py", "--address", "127.0.0.1", "--port", "PORT", "--log-level", "error"),
        path="/inference",
    ),
    Peer(
        "triton",
        ["nvidia-pytriton==0.7.0"],
        {"models/length/config.pbtxt": TRITON_CONFIG, "models/length/1/model.py": TRITON_MODEL},
        triton_command,
        path="/v2/models/length/generate",
    ),
    Peer("LitServe", ["litserve==0.2.19"], {"app.py": LITSERVE}, python_command("app.py", "PORT"), stop=signal.SIGINT),
    Peer(
        "BentoML",
        ["bentoml==1.4.40"],
        {"service.py": BENTOML},
        python_command("-m", "bentoml", "serve", "service:Length", "--host", "127.0.0.1", "--port", "PORT"),
    ),
    Peer("Ray Serve", RAY_PINS, {"app.py": RAY}, python_command("app.py", "PORT"), path="/"),
]  # fmt: skip
