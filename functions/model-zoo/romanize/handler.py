"""Arabic names in Latin letters."""

import json

import numpy
import onnxruntime


class Romanize:
    """An Arabic name to Latin letters, one letter after another."""

    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(weights / name, options, providers=["CPUExecutionProvider"])
            for name in ("encoder.onnx", "decoder.onnx")
        )
        self.letters = json.loads((weights / "vocab.json").read_text())["tokens"]
        self.numbers = {letter: number for number, letter in enumerate(self.letters)}

    def predict(self, input, context):
        start, end, unknown = 1, 2, 3
        name = [self.numbers["<UNK_COUNTRY>"], self.numbers["<ROLE_UNKNOWN>"]]
        name += [self.numbers.get(letter, unknown) for letter in input["name"]] + [end]
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
