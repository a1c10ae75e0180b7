"""Models of different kinds behind one endpoint: what each takes and gives is its own."""

import io
import json

import numpy
import onnxruntime
from PIL import Image, UnidentifiedImageError
from tokenizers import Tokenizer


class Zoo:
    def load(self, model):
        return KINDS[model.name](model.path)

    def predict(self, input, context):
        return context.model(input)


class Classify:
    """A picture's bytes to the three likeliest of ImageNet's classes."""

    def __init__(self, folder):
        # Optimised when the weights were made; mapped as they are.
        self.session = session(folder / "efficientnet-lite0.onnx", is_mapped=True)
        self.labels = json.loads((folder / "labels.json").read_text())

    def __call__(self, data):
        if not isinstance(data, bytes):
            raise TypeError("send the picture's bytes, for example with 'Content-Type: image/jpeg'")
        try:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
        except (UnidentifiedImageError, OSError):
            raise ValueError("the body is not a picture that Pillow can read") from None
        side = int(min(picture.size) * 0.875)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        small = picture.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        (scores,) = self.session.run(["probs"], {"image": numpy.asarray(small)[None]})
        best = numpy.argsort(-scores[0])[:3]
        return [{"label": self.labels[i], "score": round(float(scores[0][i]), 4)} for i in best]


class Embed:
    """Texts to vectors of length one, close to each other where the texts mean the like."""

    def __init__(self, folder):
        self.session = session(folder / "model.onnx")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def __call__(self, value):
        encodings = self.tokenizer.encode_batch(value["texts"])
        ids = numpy.array([encoding.ids for encoding in encodings])
        mask = numpy.array([encoding.attention_mask for encoding in encodings])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        hidden = self.session.run(None, inputs)[0]
        means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        vectors = means / numpy.linalg.norm(means, axis=1, keepdims=True)
        return {"vectors": vectors.round(6).tolist()}


class Romanize:
    """An Arabic name to Latin letters, one letter after another."""

    def __init__(self, folder):
        self.encoder, self.decoder = session(folder / "encoder.onnx"), session(folder / "decoder.onnx")
        self.letters = json.loads((folder / "vocab.json").read_text())["tokens"]
        self.numbers = {letter: number for number, letter in enumerate(self.letters)}

    def __call__(self, value):
        start, end, unknown = 1, 2, 3
        name = [self.numbers["<UNK_COUNTRY>"], self.numbers["<ROLE_UNKNOWN>"]]
        name += [self.numbers.get(letter, unknown) for letter in value["name"]] + [end]
        source = numpy.array([name])
        is_padding = numpy.zeros(source.shape, bool)
        memory, mask, hidden = self.encoder.run(None, {"src": source, "src_mask": is_padding})
        written = [start]
        while len(written) < 64:
            inputs = {"prefix": numpy.array([written]), "memory": memory, "src_mask": mask, "hidden": hidden}
            scores, hidden = self.decoder.run(None, inputs)
            written.append(int(scores[0].argmax()))
            if written[-1] == end:
                break
        return {"name": "".join(self.letters[number] for number in written[1:] if number != end)}


def session(path, is_mapped=False):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if is_mapped:
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


KINDS = {"classify": Classify, "embed": Embed, "romanize": Romanize}
