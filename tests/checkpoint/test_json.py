"""JSON has one form only here, and limits that hold before it is parsed."""

import pytest

import gradtx
from gradtx.checkpoint import _json


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"b": [1, -2, True, None, "é\u2028"], "a": {"": 0.1}},
        [1e-308, 1.7976931348623157e308, -0.0, 2**63],
        "[" * 100,
    ],
)
def test_what_is_written_is_read(data):
    raw = _json.canonical(data)
    assert _json.parsed(raw) == data
    assert _json.canonical(_json.parsed(raw)) == raw


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"{} ", "not written as gradtx writes it"),
        (b'{"b":1,"a":2}', "not written as gradtx writes it"),
        (b"1.0e0", "not written as gradtx writes it"),
        (b'{"a":1,"a":1}', "a key comes twice"),
        (b"NaN", "NaN is no number"),
        (b"[Infinity]", "Infinity is no number"),
        (b"1e999", "beyond all floats"),
        (b"1" * 401, "too many digits"),
        ('"é"'.encode(), "not ASCII"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b'{"a":' * 100_000, "nested deeper than 64"),
        (b" " * (_json.LONGEST + 1), "at most 16777216"),
    ],
)
def test_anything_else_is_damage(raw, told):
    with pytest.raises(gradtx.DamagedError, match=told):
        _json.parsed(raw)


@pytest.mark.parametrize("data", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_carry_is_not_written(data):
    with pytest.raises((TypeError, ValueError)):
        _json.canonical(data)
