"""Writes down what is said. Long recordings are cut where nobody speaks."""

import io
import wave

import ctranslate2
import numpy
import onnxruntime
from hearth_runtime import InputError
from tokenizers import Tokenizer

RATE = 16_000
#: 32 ms: what the detector of speech hears at a time.
WINDOW = 512
#: 28 s: Whisper hears half a minute at a time.
LONGEST = 28 * RATE
#: 1.5 s: a shorter silence is part of what is said, which is understood better as a whole. A little is kept around it.
SILENCE, MARGIN = int(1.5 * RATE), int(0.1 * RATE)


class Listen:
    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.detector = onnxruntime.InferenceSession(
            weights / "speech.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.whisper = ctranslate2.models.Whisper(str(weights / "whisper"), compute_type="int8", intra_threads=1)
        self.tokenizer = Tokenizer.from_file(str(weights / "whisper/tokenizer.json"))
        marks = ("<|startoftranscript|>", "<|notimestamps|>")
        self.prompt = [self.tokenizer.token_to_id(mark) for mark in marks]
        self.bank = mel_bank()

    def predict(self, input, context):
        if not isinstance(input, bytes):
            raise InputError("send a WAV file's bytes: curl -H 'Content-Type: audio/wav' --data-binary @speech.wav")
        sound = read(input)
        segments = []
        for begin, end in self.spoken(sound):
            text = self.write_down(sound[begin:end])
            segments.append({"begin": round(begin / RATE, 2), "end": round(end / RATE, 2), "text": text})
        return {"text": " ".join(segment["text"] for segment in segments), "segments": segments}

    def spoken(self, sound):
        """Where somebody speaks, as pairs of samples: none longer than Whisper hears at a time."""
        state, before = numpy.zeros((2, 1, 128), numpy.float32), numpy.zeros(64, numpy.float32)
        segments = []
        for begin in range(0, len(sound) - WINDOW + 1, WINDOW):
            heard = numpy.concatenate([before, sound[begin : begin + WINDOW]])
            inputs = {"input": heard[None], "state": state, "sr": numpy.array(RATE)}
            odds, state = self.detector.run(None, inputs)
            before = heard[-64:]
            if odds[0, 0] < 0.5:
                continue
            end = begin + WINDOW
            if segments and begin - segments[-1][1] < SILENCE and end - segments[-1][0] < LONGEST:
                segments[-1][1] = end
            else:
                segments.append([begin, end])
        return [(max(0, begin - MARGIN), min(len(sound), end + MARGIN)) for begin, end in segments]

    def write_down(self, sound):
        features = ctranslate2.StorageView.from_array(log_mel(sound, self.bank)[None])
        (result,) = self.whisper.generate(features, [self.prompt], beam_size=5)
        return self.tokenizer.decode(result.sequences_ids[0]).strip()


def read(data):
    """A WAV file as samples from -1 to 1, 16,000 a second, of its first channel."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            if file.getsampwidth() != 2 or not 4_000 <= rate <= 192_000:
                raise wave.Error("samples are not of 16 bits, or not of 4 to 192 kHz")
            # A file that was streamed does not know its length: what is there counts.
            frames = file.readframes(len(data))
    except (wave.Error, EOFError) as error:
        raise InputError(f"this is not a WAV file as it should be: {error}") from None
    samples = numpy.frombuffer(frames[: len(frames) // (2 * channels) * 2 * channels], "<i2")[::channels]
    places = numpy.arange(len(samples) * RATE // rate) * (rate / RATE)
    return numpy.interp(places, numpy.arange(len(samples)), samples / 32768).astype("f4") if len(samples) else places


def mel_bank():
    """Triangles on Slaney's mel scale: 80 bands of the 201 frequencies of 400 samples."""
    steps = numpy.linspace(0, 15 + 27 * numpy.log(8) / numpy.log(6.4), 82)
    edges = numpy.where(steps >= 15, 1000 * numpy.exp((steps - 15) * numpy.log(6.4) / 27), steps * 200 / 3)
    slopes = edges[:, None] - numpy.linspace(0, RATE / 2, 201)
    widths = numpy.diff(edges)[:, None]
    triangles = numpy.maximum(0, numpy.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return (triangles * 2 / (edges[2:] - edges[:-2])[:, None]).astype(numpy.float32)


def log_mel(sound, bank):
    """What Whisper hears (Radford et al., 2022): 80 bands a hundredth of a second, half a minute."""
    padded = numpy.pad(numpy.pad(sound, (0, 30 * RATE - len(sound))), 200, mode="reflect")
    frames = numpy.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:3000]
    power = numpy.abs(numpy.fft.rfft(frames * numpy.hanning(401)[:-1].astype(numpy.float32), axis=1)) ** 2
    bands = numpy.log10(numpy.maximum(bank @ power.T, 1e-10))
    return ((numpy.maximum(bands, bands.max() - 8) + 4) / 4).astype(numpy.float32)
