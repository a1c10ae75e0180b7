"""A product's picture and description to a catalogue's entry: an ensemble of functions, called in parallel."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

from hearth_runtime import CallError, InputError, Upload

#: Words that no keyword begins or ends with.
SMALL = re.compile(
    r"(a|an|and|are|as|at|be|been|but|by|can|for|from|has|have|how|if|in|into|is|it|its|no|not|of|on|or|our|so|than|that|"
    r"the|their|them|they|this|to|was|we|were|when|which|while|will|with|you|your)"
)
#: 40: of a long description the first phrases.
PHRASES_MAX = 40


class Catalogue:
    def load(self, context):
        # As many calls at a time as embed makes one batch of.
        self.callers = ThreadPoolExecutor(16)

    def predict(self, input, context):
        picture, text = parts(input)
        looked = self.callers.submit(context.call, "classify-image", picture)
        phrases = candidates(text)
        vectors = list(self.callers.map(lambda t: context.call("embed", {"text": t})["vector"], [text, *phrases]))
        try:
            labels = looked.result()
        except CallError as error:
            if error.code == "function_input":
                raise InputError(str(error)) from None
            raise
        return {
            "title": text.split(".")[0].strip()[:80],
            "category": labels[0]["label"],
            "labels": labels,
            "keywords": keywords(phrases, vectors[1:], vectors[0], **context.config),
            "vector": vectors[0],
        }


def parts(input):
    """The picture's bytes and the description, from a form with both."""
    picture, text = (input.get("picture"), input.get("text")) if isinstance(input, dict) else (None, None)
    if not isinstance(picture, Upload) or not isinstance(text, str) or not text.strip():
        raise InputError("send a form with a file and a text: curl -F picture=@product.jpg -F 'text=A red cup.'")
    return picture.data, text.strip()


def candidates(text):
    """Phrases of one and two words that may be keywords, in the order of the text."""
    words, pairs = [], []
    for clause in re.split(r"[.,;:!?()\n]", text):
        found = [word.lower() for word in re.findall(r"[^\W\d_][\w-]+", clause)]
        words += found
        pairs += [f"{first} {second}" for first, second in itertools.pairwise(found)]
    phrases = [p for p in [*pairs, *words] if not any(SMALL.fullmatch(word) for word in p.split())]
    return list(dict.fromkeys(phrases))[:PHRASES_MAX]


def keywords(phrases, vectors, whole, keywords, variety):
    """Those that are close to the whole text and not to one another (maximal marginal relevance; Carbonell and
    Goldstein, 1998)."""
    close = [product(vector, whole) for vector in vectors]

    def worth(number):
        alike = max((product(vectors[number], vectors[other]) for other in chosen), default=0)
        return (1 - variety) * close[number] - variety * alike

    chosen = []
    while len(chosen) < min(keywords, len(phrases)):
        chosen.append(max((number for number in range(len(phrases)) if number not in chosen), key=worth))
    return [{"keyword": phrases[number], "score": round(close[number], 4)} for number in chosen]


def product(left, right):
    return sum(x * y for x, y in zip(left, right, strict=True))
