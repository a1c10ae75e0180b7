"""Texts to vectors of length one. Requests that wait at the same time go through the network together."""

import numpy
import onnxruntime
from hearth_runtime import InputError
from tokenizers import Tokenizer


class Embed:
    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(weights / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def predict(self, input, context):
        return self.predict_batch([input], [context])[0]

    def predict_batch(self, inputs, contexts):
        # A request that is wrong is an error in the place of its answer; the others go on.
        answers = [None if is_text(input) else InputError('send {"text": "…"}') for input in inputs]
        right = [place for place, answer in enumerate(answers) if answer is None]
        if right:
            vectors = self.embed([inputs[place]["text"] for place in right])
            for place, vector in zip(right, vectors, strict=True):
                answers[place] = {"vector": vector.round(6).tolist()}
        return answers

    def shape(self, input):
        """Texts of a like length go together: a short one is padded to the longest of its batch."""
        return len(input["text"]).bit_length() if is_text(input) else 0

    def embed(self, texts):
        encodings = self.tokenizer.encode_batch(texts)
        ids = numpy.array([encoding.ids for encoding in encodings])
        mask = numpy.array([encoding.attention_mask for encoding in encodings])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        hidden = self.session.run(None, inputs)[0]
        means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return means / numpy.linalg.norm(means, axis=1, keepdims=True)


def is_text(input):
    return isinstance(input, dict) and isinstance(input.get("text"), str)
