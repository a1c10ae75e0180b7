"""An ONNX graph under construction, for make_weights.py of functions."""

import numpy
from onnx import helper, numpy_helper


class Graph:
    """Nodes and constants, each added by the name of what it gives."""

    def __init__(self):
        self.nodes = []
        self.initializers = []

    def constant(self, name, value, kind=numpy.float32):
        """A constant; a plain number stays a scalar. Returns its name."""
        self.initializers.append(numpy_helper.from_array(numpy.array(value, kind, order="C"), name))
        return name

    def add(self, kind, inputs, outputs, **attributes):
        """A node of one output, or of a list of them, whose names it returns."""
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return outputs
