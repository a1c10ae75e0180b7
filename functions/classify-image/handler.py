"""Names what is in a picture."""

import io
import json

import numpy
import onnxruntime
from hearth_runtime import InputError
from PIL import Image

SIDE = 224
#: The middle of the picture that the network was trained to look at.
CROP = 0.875


class Classifier:
    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # The graph was optimised when the weights were made, and its tensors are mapped as they are: a load takes a
        # fifth of the time, and workers share the memory.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(
            weights / "efficientnet-lite0.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.labels = json.loads((weights / "labels.json").read_text())
        self.top = context.config["top"]

    def predict(self, input, context):
        if not isinstance(input, bytes):
            raise InputError("send the picture's bytes, for example with 'Content-Type: image/jpeg'")
        pixels = prepare(input)
        (probabilities,) = self.session.run(["probs"], {"image": pixels})
        best = numpy.argsort(-probabilities[0])[: self.top]
        return [{"label": self.labels[i], "score": round(float(probabilities[0][i]), 4)} for i in best]


def prepare(data):
    """The picture's middle as one 224 × 224 RGB image."""
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError("the body is not a picture that Pillow can read") from None
    side = int(min(picture.size) * CROP)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return numpy.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))[None]
