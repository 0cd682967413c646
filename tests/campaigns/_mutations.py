"""Turn the manifest of a checkpoint into inputs that no checkpoint ever wrote."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from gradtx.checkpoint._json import canonical

#: What is put in place of a value.
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**62,
    2**62 + 1,
    2**64,
    -(2**63),
    10**300,
    0.0,
    -0.0,
    1.5,
    1e308,
    5e-324,
    "",
    "a",
    "0" * 64,
    "f" * 63,
    "é\u2028\ud800",
    "\0",
    "\n",
    "x" * 1025,
    "arrays/../../x",
    "../x",
    "/etc/passwd",
    "arrays//x",
    "arrays/x\0y",
    "arrays/" + "x" * 300,
    "arrays/.hidden",
    "arrays/x/",
    "arrays",
    "arrays\\x",
    "float32",
    "float128",
    "object",
    "V8",
    "int4",
    "complex128",
    "key:threefry2x32",
    "key:" + "x" * 33,
    "array",
    [],
    [0],
    [-1],
    [0, 2**62],
    [2**40, 2**40],
    [1] * 33,
    ["w"],
    [[0, 1]],
    [None],
    {},
    {"a": 1},
    {"": {}},
    {"sha256": ""},
    [[[[[[[[[[]]]]]]]]]],
]


def sealed_again(body: bytes) -> bytes:
    """Return a manifest with the digest of what it says now."""
    last = canonical({"sha256": hashlib.sha256(body).hexdigest()})
    return body + b"\n" + last + b"\n"


class Mutations:
    """Draws inputs that are like a manifest.

    Args:
      raw: a manifest as it was written.
    """

    def __init__(self, raw: bytes):
        self.raw = raw
        self.body = raw.split(b"\n")[0]
        self.data = json.loads(self.body)
        self.ways: list[tuple[str, Callable[[random.Random], bytes], int]] = [
            ("values", self.values, 50),
            ("text", self._text, 15),
            ("numbers", self._numbers, 8),
            ("nesting", self._nesting, 2),
            ("long", self._long, 1),
            ("last line", self._last, 8),
            ("bytes", self._bytes, 8),
            ("truncated", self._truncated, 4),
            ("noise", self._noise, 4),
        ]
        self._weights = [weight for *_, weight in self.ways]

    def draw(self, draw: random.Random) -> tuple[str, bytes]:
        """Return the name of a way, and an input."""
        (way,) = draw.choices(self.ways, self._weights)
        return way[0], way[1](draw)

    def each(self) -> Iterator[bytes]:
        """Yield an input for each place in the data and each odd value."""
        for number, _ in enumerate(_places(self.data)):
            data = copy.deepcopy(self.data)
            node, key = list(_places(data))[number]
            for odd in ODD:
                node[key] = odd
                yield sealed_again(canonical(data))
            del node[key]
            yield sealed_again(canonical(data))

    def values(self, draw: random.Random) -> bytes:
        """Change values, keys and items of the data; all digests fit."""
        data = copy.deepcopy(self.data)
        for _ in range(draw.choice([1, 1, 1, 2, 4])):
            node, key = draw.choice(list(_places(data)))
            other, there = draw.choice(list(_places(data)))
            what = draw.randrange(7)
            if what < 3:
                node[key] = copy.deepcopy(draw.choice(ODD))
            elif what == 3:
                node[key] = copy.deepcopy(other[there])
            elif what == 4:
                del node[key]
            elif isinstance(node, dict):
                new = draw.choice(["", "x", "../x", "é", "a" * 65, key.upper()])
                node[new] = node.pop(key) if what == 5 else draw.choice(ODD)
            else:
                node.insert(key, copy.deepcopy(draw.choice([node[key], *ODD])))
            if not isinstance(data, dict) or not data:
                break
        return sealed_again(canonical(data))

    def _text(self, draw: random.Random) -> bytes:
        """Change bytes of the text, so that JSON may mean the same or nothing."""
        body = self.body
        for _ in range(draw.choice([1, 1, 2])):
            at = draw.randrange(len(body))
            until = at + draw.choice([0, 0, 1, 1, 2, 8])
            more = draw.choice(
                [
                    b" ",
                    b"\t",
                    b"\\u0041",
                    b"\\",
                    b'"',
                    b",",
                    b":",
                    b"[",
                    b"}",
                    b"0",
                    b"-",
                    b"e9",
                    b"NaN",
                    b"Infinity",
                    b"null",
                    b"\x80",
                    b"\n",
                    b"\0",
                    b'"step":1,',
                    b'"":0,',
                    bytes([draw.randrange(256)]),
                ]
            )
            body = body[:at] + more + body[until:]
        return sealed_again(body)

    def _numbers(self, draw: random.Random) -> bytes:
        """Put another way to write a number, or none, in place of one."""
        pieces = self.body.split(b":")
        starts = [i for i, piece in enumerate(pieces) if piece[:1].isdigit()]
        at = draw.choice(starts)
        digits = len(pieces[at]) - len(pieces[at].lstrip(b"0123456789"))
        made = draw.choice(
            [
                b"NaN",
                b"-Infinity",
                b"Infinity",
                b"1e999",
                b"-1e999",
                b"1e-999",
                b"01",
                b"1.",
                b"1.0",
                b"+1",
                b"-0",
                b"0x10",
                b"1" * 401,
                b"1" * 5000,
                b"1." + b"1" * 500,
                b"1e" + b"9" * 50,
                b"true",
                b"nan",
            ]
        )
        pieces[at] = made + pieces[at][digits:]
        return sealed_again(b":".join(pieces))

    def _nesting(self, draw: random.Random) -> bytes:
        """Nest deeper than any stack, within or in place of the data."""
        depth = draw.choice([10, 50, 63, 64, 65, 100, 2_000, 20_000])
        open_, close = draw.choice([(b"[", b"]"), (b'{"a":', b"}")])
        deep = open_ * depth + draw.choice([b"0", b"", b'"]"']) + close * depth
        if draw.random() < 0.3:
            return sealed_again(deep)
        record = b'"record":' + canonical(self.data["record"])
        assert record in self.body
        return sealed_again(self.body.replace(record, b'"record":' + deep))

    def _long(self, draw: random.Random) -> bytes:
        """Write long strings, keys and lists; brackets and quotes within them."""
        count = draw.choice([1_000, 10_000, 30_000])
        item = draw.choice([b"a", b"[", b"{", rb"\"", rb"\\", rb"\u0000", b" ", b'"'])
        text = b'"' + item * count + draw.choice([b'"', b'"', b""])
        record = b'"record":' + canonical(self.data["record"])
        return sealed_again(self.body.replace(record, b'"record":' + text))

    def _last(self, draw: random.Random) -> bytes:
        """Change the line of digests."""
        digest = hashlib.sha256(self.body).hexdigest()
        data: Any = {"sha256": digest}
        what = draw.randrange(8)
        if what == 0:
            data = draw.choice(ODD)
        elif what == 1:
            data["sha256"] = draw.choice([*ODD, digest.upper(), digest[:-1]])
        elif what == 2:
            data["hmac"] = draw.choice([*ODD, digest])
        elif what == 3:
            data[draw.choice(["", "md5", "x" * 300])] = draw.choice(ODD)
        last = canonical(data)
        if what == 4:
            last = last[:1] + b" " + last[1:]
        elif what == 5:
            last = last[:-1] + b"," + last[1:]
        elif what == 6:
            last = draw.choice([b"", b"\n", b"{}", b"[" * 100, b'"' + rb"\"" * 5_000])
        end = draw.choice([b"\n", b"\n", b"", b"\n\n", b"\r\n", b"\0"])
        return self.body + draw.choice([b"\n", b"\n", b"\n\n", b""]) + last + end

    def _bytes(self, draw: random.Random) -> bytes:
        """Change bytes anywhere; the digests are those of before."""
        raw = bytearray(self.raw)
        for _ in range(draw.choice([1, 1, 4])):
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        return bytes(raw)

    def _truncated(self, draw: random.Random) -> bytes:
        if draw.random() < 0.5:
            return self.raw[: draw.randrange(len(self.raw))]
        return sealed_again(self.body[: draw.randrange(len(self.body))])

    def _noise(self, draw: random.Random) -> bytes:
        noise = draw.randbytes(draw.choice([0, 1, 10, 1000]))
        if draw.random() < 0.5:
            return noise
        return sealed_again(bytes(byte & 127 for byte in noise))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested data, as what holds it and the key in there."""
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in items:
        yield node, key
        yield from _places(child)
