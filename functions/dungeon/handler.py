"""A text adventure: the player says what to do, a language model tells what happens, word by word."""

import json

import numpy
import onnxruntime
from hearth_runtime import InputError, Response
from tokenizers import Tokenizer

#: Where the model would begin to speak for the player.
TURN = "\n\nYou"


class Dungeon:
    def load(self, context):
        weights = context.bundle / "weights"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(weights / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self.network = json.loads((weights / "shape.json").read_text())

    def predict(self, input, context):
        if not isinstance(input, dict) or not str(input.get("action", "")).strip():
            raise InputError('send what you do, as in {"action": "look around"}, and the story so far as "story"')
        action = str(input["action"]).strip().rstrip(".")
        story = f"{input.get('story') or context.config['opening']}{TURN} {action}."
        try:
            words = self.tell(
                story, tokens=min(int(input.get("tokens", 60)), 400), temperature=float(input.get("temperature", 0.8)),
                top=int(input.get("top-k", 40)), random=numpy.random.default_rng(input.get("seed")),
            )  # fmt: skip
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"an option is not a number as it should be: {error}") from None
        if "text/event-stream" in context.headers.get("accept", ""):
            return Response(events(story, words), content_type="text/event-stream")
        text = "".join(words)
        return {"text": text, "story": story + text}

    def tell(self, story, tokens, temperature, top, random):
        """Yields the continuation piece by piece. Greedy at temperature 0."""
        # The model knows 2,048 tokens: of a longer story it hears the end.
        given = self.tokenizer.encode(story).ids[tokens - self.network["positions"] :]
        past = self.nothing()
        names, known, written, told = list(past), 0, [], ""
        for _ in range(tokens):
            known += len(given)
            # Each step is a call of some milliseconds: a client that leaves ends the story at the next.
            mask = numpy.ones((1, known), numpy.int64)
            scores, *past = self.session.run(None, past | {"input_ids": numpy.array([given]), "attention_mask": mask})
            token = choose(scores[0, -1], temperature, top, random)
            past = dict(zip(names, past, strict=True))
            written.append(token)
            given = [token]
            text = self.tokenizer.decode(written)
            if token in self.network["ends"] or TURN in text:
                return
            # A character of several tokens, and what may become the player's turn, waits for the next one.
            if not text.endswith(("\ufffd", "\n")):
                yield text[len(told) :]
                told = text

    def nothing(self):
        """What the model remembers at the beginning."""
        empty = numpy.zeros((1, self.network["kv_heads"], 0, self.network["head_width"]), numpy.float32)
        return {f"past.{n}.{part}": empty for n in range(self.network["layers"]) for part in ("key", "value")}


def choose(scores, temperature, top, random):
    """One of the likeliest tokens, the likelier the more often."""
    if not temperature > 0:
        return int(scores.argmax())
    top = min(max(1, top), len(scores))
    likeliest = numpy.argpartition(-scores, top - 1)[:top]
    odds = numpy.exp((scores[likeliest] - scores[likeliest].max()) / temperature)
    return int(random.choice(likeliest, p=odds / odds.sum()))


def events(story, words):
    """Server-sent events: a `word` for each piece, and at the end the `story` for the client to keep."""
    for word in words:
        story += word
        yield f"event: word\ndata: {json.dumps(word)}\n\n"
    yield f"event: story\ndata: {json.dumps(story)}\n\n"
