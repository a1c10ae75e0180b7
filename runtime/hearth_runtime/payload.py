"""Requests' bodies to inputs, and results to responses."""

import email.parser
import email.policy
import json
import re
import urllib.parse
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

#: A field's name and value (RFC 9110, section 5).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Chunk = bytes | bytearray | memoryview | str


class InputError(Exception):
    """The request is at fault, not the function: raise it in `predict` with a text that says what to send instead.

    Answered with 400 and the code `function_input`; nothing is logged. Raised by Hearth itself where a body is not what
    its Content-Type says.
    """


class Upload:
    """One file of a multipart/form-data request.

    Attributes:
        filename: as the client named it; empty when it did not.
        content_type: as the client declared it.
        data: the bytes.
    """

    __slots__ = ("content_type", "data", "filename")

    def __init__(self, filename: str, content_type: str, data: bytes) -> None:
        self.filename = filename
        self.content_type = content_type
        self.data = data


class Response:
    """A result with a content type, a status or header fields of its own.

    Args:
        body: bytes, text, anything JSON can hold, or an iterator of chunks that is streamed as it yields.
        content_type: default: by the body's kind (application/octet-stream, text/plain, application/json).
        status: the HTTP status, from 200 to 599.
        headers: further fields; those of the connection and of Hearth itself are dropped by the gateway.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = b"",
        content_type: str | None = None,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"a response's status is from 200 to 599, not {status}")
        self.body = body
        self.content_type = content_type
        self.status = status
        self.headers = headers or {}
        for name, value in {**self.headers, "content-type": content_type or ""}.items():
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"the header field {name!r} is not valid")


def parse_input(content_type: str, body: bytes) -> Any:
    """The input for `predict`: JSON as Python values, forms as a dict, text as str, all else as bytes.

    An empty body is None. Raises InputError when the body is not what the content type says.
    """
    if not body:
        return None
    if content_type == "application/json":
        return _parse_json(body)
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _parse_json(body)
    if kind == "multipart/form-data":
        return _parse_multipart(content_type, body)
    if kind == "application/x-www-form-urlencoded":
        # What `curl -d '{…}'` sends when no type is given.
        if body.lstrip()[:1] in (b"{", b"["):
            return _parse_json(body)
        fields = urllib.parse.parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    if kind.startswith("text/"):
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("The body is not UTF-8 text.") from None
    return body


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise InputError(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InputError("The body's JSON is nested too deeply.") from None


def _parse_multipart(content_type: str, body: bytes) -> dict[str, Any]:
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not message.is_multipart():
        raise InputError("The body is not valid multipart/form-data.")
    form: dict[str, Any] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise InputError("A part of the multipart body has no name.")
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
        filename = part.get_filename()
        is_upload = filename is not None or part.get_content_maintype() != "text"
        value = Upload(filename or "", part.get_content_type(), data) if is_upload else data.decode("utf-8", "replace")
        if name not in form:
            form[name] = value
        elif isinstance(form[name], list):
            form[name].append(value)
        else:
            form[name] = [form[name], value]
    return form


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a result of type {type(value).__name__} cannot be sent as JSON")


#: Made once: `json.dumps` with options makes an encoder for every call.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=_plain).encode


def encode_json(value: Any) -> bytes:
    """JSON as UTF-8; numpy's numbers and arrays become plain ones."""
    return _encode(value).encode()


def encode_chunk(chunk: Chunk) -> bytes:
    """One streamed chunk as bytes."""
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise TypeError(f"a streamed chunk is bytes or text, not {type(chunk).__name__}")


def encode_result(
    result: Any,
) -> tuple[int, str, dict[str, str], bytes | Iterator[Chunk] | AsyncIterator[Chunk]]:
    """Status, content type, further fields, and the body: bytes, or an iterator of chunks to be streamed."""
    if isinstance(result, _JSON):
        return 200, "application/json", {}, encode_json(result)
    status, fields, declared = 200, {}, None
    if isinstance(result, Response):
        status, fields, declared, result = result.status, result.headers, result.content_type, result.body
        if isinstance(result, str):
            return status, declared or "text/plain; charset=utf-8", fields, result.encode()
    if isinstance(result, bytes | bytearray | memoryview):
        return status, declared or "application/octet-stream", fields, bytes(result)
    if isinstance(result, AsyncIterator):
        return status, declared or "text/plain; charset=utf-8", fields, result
    # Numpy's arrays iterate as well, but are meant as JSON.
    if isinstance(result, Iterable) and not isinstance(result, _JSON) and not hasattr(result, "tolist"):
        return status, declared or "text/plain; charset=utf-8", fields, iter(result)
    return status, declared or "application/json", fields, encode_json(result)


_JSON = (dict, list, tuple, str)
