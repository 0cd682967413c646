"""Say whether data from a file has the form of a described optimizer."""

from __future__ import annotations

from typing import Any


def is_described(data: Any) -> bool:
    """Say whether data has the form that `describe` writes, in every part.

    Whether there is such a factory, and whether it takes such arguments, `build` says.

    Example:
      >>> is_described({"call": "gradtx.adam", "arguments": {"b1": 0.9}})
      True
      >>> is_described({"call": "gradtx.adam", "arguments": [0.9]})
      False
    """
    if isinstance(data, list):
        return all(map(is_described, data))
    if not isinstance(data, dict):
        return True
    if data.keys() == {"call", "arguments"}:
        call, arguments = data["call"], data["arguments"]
        if not isinstance(call, str) or not isinstance(arguments, dict):
            return False
        if call == "gradtx.named_chain" and not _are_named(arguments):
            return False
        return is_described(arguments)
    if data.keys() == {"$tuple"} and not isinstance(data["$tuple"], list):
        return False
    if data.keys() == {"$items"} and not _are_pairs(data["$items"]):
        return False
    return all(map(is_described, data.values()))


def _are_named(arguments: dict[str, Any]) -> bool:
    links = arguments.get("named_links")
    if not isinstance(links, list):
        return False
    marked = [isinstance(link, dict) and link.keys() == {"$tuple"} for link in links]
    return all(marked) and _are_pairs([link["$tuple"] for link in links])


def _are_pairs(data: Any) -> bool:
    return isinstance(data, list) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in data
    )
