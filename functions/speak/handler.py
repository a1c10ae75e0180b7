"""Reads a text aloud, sentence by sentence: the first is heard while the second is made."""

import json
import re
import struct
import subprocess
import unicodedata

import numpy
import onnxruntime
from hearth_runtime import InputError, Response

#: How much chance there is in the voice, how slowly it speaks, and how much its tempo varies.
NOISE, TEMPO, VARIATION = 0.667, 1.0, 0.8
#: Between two sentences, in seconds.
PAUSE = 0.25


class Speak:
    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # Its tensors are mapped as they are, and the graph is taken as it is: a load takes a fifth of the time.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(weights / "voice.onnx", options, providers=["CPUExecutionProvider"])
        voice = json.loads((weights / "voice.json").read_text())
        self.rate, self.sounds = voice["rate"], voice["sounds"]

    def predict(self, input, context):
        text = input.get("text") if isinstance(input, dict) else input
        if not isinstance(text, str) or not text.strip():
            raise InputError('send {"text": "…"}, or the text itself as text/plain')
        sentences = re.findall(r"[^.!?\n]{1,400}[.!?]*", text)
        return Response(self.wav(sentences), content_type="audio/wav")

    def wav(self, sentences):
        """The pieces of a WAV file: 16 bits, one channel. Its length is not known yet, so the head says the most."""
        yield struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, self.rate, self.rate * 2, 2, 16,
            b"data", 0xFFFFFFFF - 36,
        )  # fmt: skip
        pause = bytes(2 * int(PAUSE * self.rate))
        for sentence in sentences:
            if any(letter.isalnum() for letter in sentence):
                yield (self.say(sentence) * 32767).astype("<i2").tobytes() + pause

    def say(self, sentence):
        """One sentence as samples from -1 to 1."""
        start, end, gap = (self.sounds[mark] for mark in "^$_")
        ids = start + gap
        for sound in spelt(sentence):
            if sound in self.sounds:
                ids += self.sounds[sound] + gap
        scales = numpy.array([NOISE, TEMPO, VARIATION], numpy.float32)
        inputs = {"input": numpy.array([ids + end]), "input_lengths": numpy.array([len(ids) + 1]), "scales": scales}
        return self.session.run(None, inputs)[0].squeeze().clip(-1, 1)


def spelt(sentence):
    """A sentence in the letters of the International Phonetic Alphabet, as espeak-ng pronounces it."""
    command = ["espeak-ng", "-v", "en-us", "--ipa", "-q", "--stdin"]
    spoken = subprocess.run(command, input=sentence, text=True, capture_output=True, check=True).stdout
    mark = sentence.rstrip()[-1:]
    return unicodedata.normalize("NFD", " ".join(spoken.split())) + (mark if mark in ".!?" else ".")
