"""What a function's folder says of itself: requests, and the answers they get."""

import json
import uuid

from gateway import ROOT

FOLDER = ROOT / "functions"


def needs(name):
    """Which other functions a function calls."""
    file = FOLDER / name / "example/expected.json"
    return json.loads(file.read_text()).get("needs", []) if file.exists() else []


#: All functions, those that call others behind them.
NAMES = sorted((path.parent.name for path in FOLDER.glob("*/function.yaml")), key=lambda n: (len(needs(n)), n))


class Example:
    """One call of `example/expected.json`."""

    def __init__(self, name, call):
        self.name = name
        self.path = f"/functions/{name}{call.get('path', '')}"
        #: How the worker comes up for it, where none is there.
        self.start = call.get("start", "zygote")
        self.answer = call["answer"]
        self.tolerance = call["tolerance"]
        self.fields = {"Content-Type": call.get("content-type", "application/json")}
        folder = FOLDER / name / "example"
        if "form" in call:
            self.body, self.fields["Content-Type"] = form(folder, call["form"])
        else:
            self.body = (folder / call["request"]).read_bytes()

    def call(self, gateway, timeout=120):
        """The gateway's answer, which must be 200."""
        answer = gateway.request(self.path, self.body, fields=self.fields, timeout=timeout)
        assert answer.status == 200, answer.body
        return answer

    def check(self, answer):
        """Fails unless an answer is as expected."""
        check(answer.json, self.answer, self.tolerance)

    def check_nothing_else(self, answer):
        """Fails when the check would let anything pass."""
        try:
            check(answer.json, changed(self.answer), self.tolerance)
        except AssertionError:
            return
        raise AssertionError(f"the check of {self.path} cannot fail")


def examples(name):
    """The calls of a function's `expected.json`; none where an answer is not the same twice."""
    file = FOLDER / name / "example/expected.json"
    return [Example(name, call) for call in json.loads(file.read_text())["calls"]] if file.exists() else []


def form(folder, parts):
    """multipart/form-data of files (after @) and texts: the body, and its content type."""
    boundary = uuid.uuid4().hex
    body = b""
    for name, value in parts.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if value.startswith("@"):
            content = (folder / value[1:]).read_bytes()
            head += f'; filename="{value[1:]}"\r\nContent-Type: application/octet-stream'
        else:
            content = value.encode()
        body += f"{head}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def check(found, expected, tolerance):
    """Whether an answer has at least what is expected: numbers within a tolerance, lists as far as they go."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            check(found[key], value, tolerance)
    elif isinstance(expected, list):
        assert len(found) >= len(expected)
        for row, value in zip(found, expected, strict=False):
            check(row, value, tolerance)
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance, (found, expected)
    else:
        assert found == expected, (found, expected)


def changed(answer):
    """The same answer with everything in it wrong."""
    if isinstance(answer, dict):
        return {key: changed(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [changed(value) for value in answer]
    return 2 * answer + 1 if isinstance(answer, float) else f"not {answer}"
