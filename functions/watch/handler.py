"""Looks for people and animals in pictures: one picture, or several frames of a camera at a time."""

import io
import json

import numpy
import onnxruntime
from hearth_runtime import InputError, Response, Upload
from PIL import Image, ImageDraw

#: 6,000: what cameras make. A decoded picture takes three bytes a pixel.
PIXELS_MAX = 6_000
#: Of ImageNet's classes the first 398 are animals.
ANIMALS = 398


class Watch:
    def load(self, context):
        weights = context.bundle / "weights"
        self.people = session(weights / "people.onnx")
        self.animals = session(weights / "efficientnet-lite0.onnx", is_mapped=True)
        self.labels = json.loads((weights / "labels.json").read_text())
        self.limits = context.config

    def predict(self, input, context):
        if isinstance(input, bytes):
            picture = read(input)
            found = self.look(picture)
            if "image/png" in context.headers.get("accept", ""):
                return Response(drawn(picture, found), content_type="image/png")
            return found
        frames = input.get("frame") if isinstance(input, dict) else None
        if frames is None:
            raise InputError("send a picture's bytes, or a form with files named 'frame'")
        frames = frames if isinstance(frames, list) else [frames]
        if not all(isinstance(frame, Upload) for frame in frames):
            raise InputError("each 'frame' is a file: curl -F frame=@one.jpg -F frame=@two.jpg")
        return {"frames": [self.look(read(frame.data)) | {"name": frame.filename} for frame in frames]}

    def look(self, picture):
        pixels = numpy.asarray(picture.resize((300, 300), Image.Resampling.BILINEAR))[None]
        boxes, scores = self.people.run(None, {"image": pixels})
        size = numpy.array([picture.height, picture.width] * 2)
        people = [
            {"score": round(float(score), 4), "box": (box * size).astype(int)[[1, 0, 3, 2]].tolist()}
            for box, score in zip(boxes, scores, strict=True)
            if score >= self.limits["person"]
        ]
        animals = [animal for animal in self.name(picture) if animal["score"] >= self.limits["animal"]]
        return {"alert": bool(people), "people": people, "animals": animals}

    def name(self, picture):
        side = int(min(picture.size) * 0.875)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        small = picture.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        (scores,) = self.animals.run(["probs"], {"image": numpy.asarray(small)[None]})
        best = [i for i in numpy.argsort(-scores[0])[:3] if i < ANIMALS]
        return [{"label": self.labels[i], "score": round(float(scores[0][i]), 4)} for i in best]


def read(data):
    try:
        picture = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        if not 16 <= min(picture.size) <= max(picture.size) <= PIXELS_MAX:
            raise InputError(f"a picture is 16 to {PIXELS_MAX} pixels wide and high")
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError("this is not a JPEG, PNG or WebP picture") from None


def drawn(picture, found):
    """The picture as PNG, with a box around each person, and what else was seen below."""
    draw = ImageDraw.Draw(picture)
    width = max(2, picture.width // 200)
    for person in found["people"]:
        draw.rectangle(person["box"], outline=(255, 64, 32), width=width)
        draw.text((person["box"][0] + 2 * width, person["box"][1] + width), f"person {person['score']:.2f}",
                  fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0), font_size=16)  # fmt: skip
    seen = ", ".join(f"{animal['label']} {animal['score']:.2f}" for animal in found["animals"])
    draw.text((8, picture.height - 26), seen, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0), font_size=16)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def session(path, is_mapped=False):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if is_mapped:
        # Optimised when the weights were made; mapped as they are.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
