"""Other Python model servers with many ONNX models behind a cache of a few places: the obvious ways to do it.

Each answers `POST` with a digit, and `GET /loads` with how many models it has loaded, as {"length": n}: it tells when a
server is ready and, afterwards, whether it hit and missed as a plain LRU does.
"""

from peers import FASTAPI_PINS, RAY_PINS, UVICORN, Peer, python_command

#: A mapped model is used as it lies in the file beside its graph; any other is copied and packed by onnxruntime.
LOAD = """
FILES = {file.parent.name: file for file in Path(os.environ["MODELS"]).glob("*/digits.onnx")}
PLACES = int(os.environ["PLACES"])


def load(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if os.environ["MAPPED"] == "1":
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
"""

#: Inference in the event loop: at one call at a time a thread pool only adds two switches of threads and a lock.
FASTAPI = (
    """
import os
from collections import OrderedDict
from pathlib import Path
from typing import Annotated

import numpy
import onnxruntime
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
"""
    + LOAD
    + """

class Picture(BaseModel):
    pixels: Annotated[list[float], Field(min_length=64, max_length=64)]


class Sessions:
    def __init__(self):
        self.kept = OrderedDict()
        self.loads = 0

    def get(self, name):
        if name in self.kept:
            self.kept.move_to_end(name)
            return self.kept[name]
        if len(self.kept) >= PLACES:
            self.kept.popitem(last=False)
        self.kept[name] = session = load(FILES[name])
        self.loads += 1
        return session


app = FastAPI()
sessions = Sessions()


@app.get("/loads")
async def loads() -> dict[str, int]:
    return {"length": sessions.loads}


@app.post("/models/{name}")
async def predict(name: str, picture: Picture) -> dict[str, int]:
    if name not in FILES:
        raise HTTPException(404)
    probabilities = sessions.get(name).run(None, {"pixels": numpy.array([picture.pixels], numpy.float32)})[0][0]
    return {"digit": int(probabilities.argmax())}
"""
)

RAY = (
    """
import os
import sys
from pathlib import Path

import numpy
import onnxruntime
import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
"""
    + LOAD
    + """

@serve.deployment(num_replicas=1, max_ongoing_requests=100, logging_config=LoggingConfig(enable_access_log=False))
class Digits:
    def __init__(self):
        self.loads = 0

    @serve.multiplexed(max_num_models_per_replica=PLACES)
    async def session(self, name: str):
        self.loads += 1
        return load(FILES[name])

    async def __call__(self, request: Request) -> dict:
        if request.method == "GET":
            return {"length": self.loads}
        body = await request.json()
        session = await self.session(serve.get_multiplexed_model_id())
        probabilities = session.run(None, {"pixels": numpy.array([body["pixels"]], numpy.float32)})[0][0]
        return {"digit": int(probabilities.argmax())}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 1024 * 1024,
             _temp_dir=os.environ["RAY_TMPDIR"], log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
                logging_config=LoggingConfig(enable_access_log=False))
    serve.run(Digits.bind(), route_prefix="/", blocking=True)
"""
)

ONNX = ["numpy==2.4.6", "onnxruntime==1.32.0"]


def in_path(model):
    return f"/models/{model}", ""


def in_field(model):
    return "/", f"serve_multiplexed_model_id: {model}\r\n"


def model_peers(models, places):
    """The servers on the models of a folder, each with how a call names its model."""

    def peer(name, text, requirements, command, mapped):
        variables = {"MODELS": str(models), "PLACES": str(places), "MAPPED": str(int(mapped))}
        return Peer(name, requirements + ONNX, {"app.py": text}, command, path="/loads", variables=variables)

    return [
        (peer("FastAPI, LRU of sessions", FASTAPI, FASTAPI_PINS, UVICORN, mapped=False), in_path),
        (peer("FastAPI, LRU of mapped sessions", FASTAPI, FASTAPI_PINS, UVICORN, mapped=True), in_path),
        (
            peer("Ray Serve, multiplexed", RAY, RAY_PINS, python_command("app.py", "PORT"), False),
            in_field,
        ),
    ]
