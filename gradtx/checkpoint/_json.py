"""Write JSON in one way only, and read it with limits that hold before it is parsed."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from gradtx.core import DamagedError

#: How long a manifest may be, in bytes.
LONGEST = 16 << 20
#: How deep it may be nested.
DEEPEST = 64
_MOST_DIGITS = 400  # of one number: floats in full have 17, integers here at most 20
_STRING = re.compile(rb'"[^"]*"?')
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def canonical(data: Any) -> bytes:
    """Return plain data as JSON: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def parsed(raw: bytes) -> Any:
    """Return the data of a JSON text that `canonical` wrote.

    Raises:
      DamagedError: if it is too long or too deep, is no JSON, holds a key twice, a NaN,
        an infinity or an endless number, or is written in another way.
    """
    if len(raw) > LONGEST:
        raise DamagedError(f"{len(raw)} bytes of JSON, where at most {LONGEST} may be.")
    if not raw.isascii():
        raise DamagedError("a byte in the JSON that is not ASCII.")
    if _depth(raw) > DEEPEST:
        raise DamagedError(f"the JSON is nested deeper than {DEEPEST}.")
    try:
        data = json.loads(
            raw,
            object_pairs_hook=_unique,
            parse_constant=_refused,
            parse_float=_float,
            parse_int=_int,
        )
        same = canonical(data) == raw
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the JSON cannot be read: {error}.") from error
    if not same:
        raise DamagedError("the JSON is not written as gradtx writes it.")
    return data


def _depth(raw: bytes) -> int:
    # escapes go first: one pattern for both takes squared time where no quote closes
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    depth = deepest = 0
    for byte in _STRING.sub(b"", plain).translate(None, _NO_BRACKET):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > DEEPEST:
                break
        else:
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _float(text: str) -> float:
    value = float(_short(text))
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number beyond all floats")
    return value


def _int(text: str) -> int:
    return int(_short(text))


def _short(text: str) -> str:
    if len(text) > _MOST_DIGITS:
        raise ValueError("a number of too many digits")
    return text
