"""Reads a hand-written digit of 8 × 8 grey pixels with the model that the caller names."""

import numpy
import onnxruntime
from hearth_runtime import InputError


class Digits:
    def __init__(self, context):
        # Made ahead of the model: the first session of a process costs what all others share.
        session(context.bundle / "warm.onnx")

    def load(self, model):
        return session(model.path / "digits.onnx")

    def predict(self, input, context):
        try:
            pixels = numpy.asarray(input["pixels"], numpy.float32).reshape(1, 64)
        except (TypeError, KeyError, ValueError, OverflowError):
            raise InputError("send 'pixels': 64 numbers from 0 (paper) to 1 (ink), row by row") from None
        (probabilities,) = context.model.run(["probabilities"], {"pixels": pixels})
        digit = int(probabilities[0].argmax())
        return {"digit": digit, "score": round(float(probabilities[0][digit]), 4), "model": context.model_name}


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # The weights lie beside the graph and are mapped as they are: a load costs milliseconds, and evicting the model
    # leaves them in the page cache.
    options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
