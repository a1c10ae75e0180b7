"""Bodies to inputs, results to responses."""

import pytest
from hearth_runtime import Response
from hearth_runtime.payload import InputError, encode_chunk, encode_json, encode_result, parse_input


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("application/problem+json", b"1", 1),
        ("text/plain; charset=utf-8", "grüße".encode(), "grüße"),
        ("application/x-www-form-urlencoded", b"a=1&b=2&b=3", {"a": "1", "b": ["2", "3"]}),
        ("application/x-www-form-urlencoded", b' {"a": 1}', {"a": 1}),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("", b"raw", b"raw"),
        ("application/json", b"", None),
    ],
)
def test_inputs(kind, body, value):
    assert parse_input(kind, body) == value


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"[" * 200_000),
        ("text/plain", b"\xff"),
        ("multipart/form-data", b"no boundary"),
    ],
)
def test_inputs_that_are_not_what_they_say(kind, body):
    with pytest.raises(InputError):
        parse_input(kind, body)


def test_results():
    assert encode_result({"a": 1}) == (200, "application/json", {}, b'{"a":1}')
    assert encode_result("text")[1:] == ("application/json", {}, b'"text"')
    assert encode_result(b"raw")[1] == "application/octet-stream"
    assert encode_result(Response("text"))[1] == "text/plain; charset=utf-8"
    status, kind, fields, body = encode_result(Response({"a": 1}, status=201, headers={"X-A": "1"}))
    assert (status, kind, fields, body) == (201, "application/json", {"X-A": "1"}, b'{"a":1}')
    assert list(encode_result(part for part in "ab")[3]) == ["a", "b"]


def test_numpy_values_are_json():
    numpy = pytest.importorskip("numpy")
    assert encode_json({"x": numpy.float32(0.5), "y": numpy.arange(2)}) == b'{"x":0.5,"y":[0,1]}'
    assert encode_result(numpy.arange(2))[3] == b"[0,1]"


def test_what_cannot_be_sent():
    with pytest.raises(TypeError, match="set cannot be sent as JSON"):
        encode_json({"a": {1}})
    with pytest.raises(TypeError, match="a streamed chunk"):
        encode_chunk(1)  # type: ignore[arg-type]
    for headers in ({"a\r\nb": "1"}, {"a": "1\r\nx: 2"}, {"ä": "1"}):
        with pytest.raises(ValueError, match="not valid"):
            Response(b"", headers=headers)
    with pytest.raises(ValueError, match="status"):
        Response(b"", status=100)
