"""Makes weights/: any number of digit classifiers that differ, each trained, each of the size asked for.

    make_weights.py WHEELS TARGET [--count 40] [--megabytes 4]

Each network is 64 → h → h → 10: two hidden layers of seeded random features (Rahimi and Recht, 2008) and a read-out
trained in closed form by ridge regression, so that a model takes tenths of a second whatever its size. The tensors lie
in a file beside the graph, which workers map instead of reading. Needs numpy and onnx; the digits come with
scikit-learn (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0).
"""

import argparse
import gzip
import shutil
import zipfile
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Of the 1,797 digits; the others show how well a model reads what it has not seen.
TRAINED = 1437


def digits(wheels):
    """Pixels from 0 to 1, [n, 64], and which digit each is."""
    with zipfile.ZipFile(next(wheels.glob("scikit_learn-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("digits.csv.gz"))
        rows = numpy.loadtxt(gzip.decompress(wheel.read(name)).decode().splitlines(), delimiter=",")
    return (rows[:, :64] / 16).astype(numpy.float32), rows[:, 64].astype(int)


def train(pixels, labels, hidden, seed):
    """Tensors of one network, and the share of unseen digits that it reads right."""
    random = numpy.random.default_rng(seed)

    def normal(*shape, scale):
        return random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(scale)

    w1, b1 = normal(64, hidden, scale=(2 / 64) ** 0.5), normal(hidden, scale=0.3)
    w2, b2 = normal(hidden, hidden, scale=(2 / hidden) ** 0.5), normal(hidden, scale=0.1)
    order = random.permutation(len(pixels))
    seen, unseen = order[:TRAINED], order[TRAINED:]

    def features(x):
        return numpy.maximum(numpy.maximum((x - 0.3) @ w1 + b1, 0) @ w2 + b2, 0)

    known = features(pixels[seen])
    wanted = numpy.eye(10, dtype=numpy.float32)[labels[seen]]
    mean = wanted.mean(0)
    kernel = (known @ known.T).astype(numpy.float64)
    ridge = 1e-3 * numpy.trace(kernel) / len(kernel) * numpy.eye(len(kernel))
    w3 = (known.T @ numpy.linalg.solve(kernel + ridge, wanted - mean).astype(numpy.float32)) * 8
    b3 = (mean * 8).astype(numpy.float32)
    accuracy = ((features(pixels[unseen]) @ w3 + b3).argmax(1) == labels[unseen]).mean()
    return {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3.astype(numpy.float32), "b3": b3}, float(accuracy)


def save(tensors, folder):
    shift = numpy_helper.from_array(numpy.array([0.3], numpy.float32), "shift")
    nodes = [
        helper.make_node("Sub", ["pixels", "shift"], ["centred"]),
        helper.make_node("Gemm", ["centred", "w1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["h1"]),
        helper.make_node("Gemm", ["h1", "w2", "b2"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["h2"]),
        helper.make_node("Gemm", ["h2", "w3", "b3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [shift, *(numpy_helper.from_array(value, name) for name, value in tensors.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    onnx.save_model(
        model, folder / "digits.onnx", save_as_external_data=True, location="digits.bin", size_threshold=1024
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--megabytes", type=float, default=4)
    options = parser.parse_args()
    pixels, labels = digits(options.wheels)
    # The hidden layers have h² + 75 h numbers of four bytes.
    hidden = int((-75 + (75 * 75 + 4 * options.megabytes * 1e6 / 4) ** 0.5) / 2)
    for number in range(options.count):
        tensors, accuracy = train(pixels, labels, hidden, seed=number)
        if accuracy < 0.9:
            raise SystemExit(f"model {number} reads {accuracy:.3f} of the digits right: something is wrong")
        save(tensors, options.target / f"customer-{number:03d}")


if __name__ == "__main__":
    main()
