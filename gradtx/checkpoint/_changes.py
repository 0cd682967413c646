"""List what differs between a checkpoint and what it is restored into."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gradtx.checkpoint._leaves import Listing
from gradtx.checkpoint._records import Leaf, Manifest, StateRecord
from gradtx.core import (
    DescriptionError,
    build,
    describe,
    is_described_link,
    unchecked,
)

#: What differs: a hyperparameter by its value, a function or object of which only the
#: name is known, the links of the optimizer, a state's class, or a leaf.
Kind = Literal["hyperparameter", "opaque", "optimizer", "state", "leaf"]

_MOST_SHOWN = 20


class Change(NamedTuple):
    """One difference.

    Attributes:
      kind: what it is of.
      path: where: `adamw.weight_decay`, `opt_state.scale_by_adam.mu['w']`.
      then: what the checkpoint has.
      now: what there is now.
    """

    kind: Kind
    path: str
    then: str
    now: str

    def __str__(self) -> str:
        where = self.path if self.path == self.kind else f"{self.kind} {self.path}"
        if self.then == self.now:
            return f"{where}: {self.then}, then and now"
        return f"{where}: {self.then} -> {self.now}"


def shown(changes: Sequence[Change]) -> str:
    """Return a line for each change, at most some twenty."""
    lines = [f"  {change}" for change in changes[:_MOST_SHOWN]]
    if more := len(changes) - _MOST_SHOWN:
        lines += [f"  and {more} more"] * (more > 0)
    return "\n".join(lines)


def optimizer_changes(then: Any, now: Any) -> list[Change]:
    """Return how two descriptions of optimizers differ, in the order of the calls."""
    return list(_compared(_with_defaults(then), _with_defaults(now), ""))


def _with_defaults(data: Any) -> Any:
    """Return a description with the arguments that have been added since."""
    try:
        return describe(_built(data), opaque=True)
    except (DescriptionError, ValueError, TypeError):
        return data


def _built(data: Any) -> Any:
    with unchecked():  # it was warned of when it was made
        return build(data)


def argument_names(data: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each argument of a description that is no transformation."""
    if (parts := _links(data) or _parts(data)) is not None:
        for name, part in parts.items():
            yield from argument_names(part, _joined(path, name))
    elif _is_call(data):
        for name, value in data["arguments"].items():
            here = _joined(path, name)
            if not _holds_links(value):
                yield here
            yield from argument_names(value, here)


def _compared(then: Any, now: Any, path: str) -> Iterator[Change]:
    old, new = _links(then), _links(now)
    if old is None or new is None:
        old, new = _parts(then), _parts(now)
    if old is not None and new is not None:
        yield from _compared_links(old, new, path)
    elif _is_call(then) and _is_call(now) and then["call"] == now["call"]:
        a, b = then["arguments"], now["arguments"]
        for name in {**a, **b}:
            here = _joined(path, name)
            yield from _compared(a.get(name, _ABSENT), b.get(name, _ABSENT), here)
    elif _is_opaque(then) and then == now:
        yield Change("opaque", path or "optimizer", brief(then), brief(now))
    elif then != now:
        yield Change(_kind(then, now), path or "optimizer", brief(then), brief(now))
        if pair := _pair(then, now, path):
            yield from _compared(*pair)


_ABSENT = {"$absent": True}


def _kind(then: Any, now: Any) -> Kind:
    if any(_holds_links(x) and not _is_opaque(x) for x in (then, now)):
        return "optimizer"
    return "opaque" if _is_opaque(then) or _is_opaque(now) else "hyperparameter"


def _compared_links(
    then: Mapping[str, Any], now: Mapping[str, Any], path: str
) -> Iterator[Change]:
    if [*then] != [*now]:
        names = (", ".join(then), ", ".join(now))
        yield Change("optimizer", path or "links", *names)
    for name in then:
        if name in now:
            yield from _compared(then[name], now[name], _joined(path, name))
    # a link that moved into another, or out of it, must not hide what changed in it
    seen: set[str] = set()
    for name in [name for name in then if name not in now]:
        pairs = {
            other: pair
            for other in now
            if other not in then
            and (pair := _pair(then[name], now[other], path, name, other))
        }
        if pairs:
            other = min(pairs, key=lambda o: (pairs[o][0] != pairs[o][1], o in seen))
            seen.add(other)
            yield from _compared(*pairs[other])


def _pair(
    then: Any, now: Any, path: str, name: str = "", other: str = ""
) -> tuple[Any, Any, str] | None:
    """Return a link and the one of its kind inside another, wherever, and the path."""
    if found := _same_kind(then, now, _joined(path, other)):
        return then, found[1], found[0]
    if found := _same_kind(now, then, _joined(path, name)):
        return found[1], now, found[0]
    return None


def _same_kind(link: Any, outer: Any, path: str) -> tuple[str, Any] | None:
    """Return the path and the description of a link like another, rather an equal one."""
    if not (_is_call(link) and is_described_link(link)):
        return None
    same = [x for x in _inside(outer, path) if x[1]["call"] == link["call"]]
    return min(same, key=lambda x: x[1] != link, default=None)


def _inside(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the calls of transformations in a description, with their paths."""
    if _is_call(data) and is_described_link(data):
        yield path, data
    for name, part in (_links(data) or _parts(data) or _arguments(data)).items():
        yield from _inside(part, _joined(path, name))


def _arguments(data: Any) -> Mapping[str, Any]:
    return data["arguments"] if _is_call(data) else {}


def _parts(data: Any) -> dict[str, Any] | None:
    """Return what a dict, list or tuple that holds transformations holds, by name."""
    parts: dict[str, Any] | None = None
    if isinstance(data, list):
        parts = {str(index): part for index, part in enumerate(data)}
    elif isinstance(data, Mapping) and data.keys() == {"$tuple"}:
        parts = {str(index): part for index, part in enumerate(data["$tuple"])}
    elif isinstance(data, Mapping) and data.keys() == {"$items"}:
        parts = {str(name): part for name, part in data["$items"]}
    elif isinstance(data, Mapping) and not _is_call(data):
        parts = dict(data)
    return parts if parts and any(map(is_described_link, parts.values())) else None


def _holds_links(data: Any) -> bool:
    return is_described_link(data) or _parts(data) is not None


def _links(data: Any) -> dict[str, Any] | None:
    """Return the links of a described chain by the names of their states."""
    if not _is_call(data):
        return None
    arguments = data["arguments"]
    if data["call"] == "gradtx.chain" and isinstance(arguments.get("links"), list):
        seen: collections.Counter[str] = collections.Counter()
        found = {}
        for link in arguments["links"]:
            name = str(link["call"]).rpartition(".")[2] if _is_call(link) else "link"
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name}_{seen[name]}"] = link
        return found
    named = arguments.get("named_links")
    if data["call"] == "gradtx.named_chain" and isinstance(named, list):
        return {str(pair["$tuple"][0]): pair["$tuple"][1] for pair in named}
    return None


def _is_call(data: Any) -> bool:
    return isinstance(data, Mapping) and data.keys() == {"call", "arguments"}


def _is_opaque(data: Any) -> bool:
    return isinstance(data, Mapping) and data.keys() == {"$opaque"}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def brief(data: Any) -> str:
    """Return described data as a person would write it, shortened where it is long."""
    try:
        text = repr(_built(data)) if _is_call(data) else _call_text(data)
    except (DescriptionError, ValueError, TypeError):
        text = _call_text(data)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _call_text(data: Any) -> str:
    if _is_call(data):
        inside = ", ".join(
            f"{name}={_call_text(value)}" for name, value in data["arguments"].items()
        )
        return f"{str(data['call']).removeprefix('gradtx.')}({inside})"
    if _is_opaque(data):
        return f"<{data['$opaque']}>"
    if data is _ABSENT:
        return "absent"
    if isinstance(data, Mapping) and len(data) == 1:
        ((mark, value),) = data.items()
        if mark == "$float":
            return str(value)
        if mark == "$tuple":
            return f"({', '.join(map(_call_text, value))})"
        if mark == "$array":
            return f"array({value.get('dtype')}{value.get('shape')})"
    if isinstance(data, list):
        return f"[{', '.join(map(_call_text, data))}]"
    return json.dumps(data)


def tree_changes(manifest: Manifest, now: Listing) -> list[Change]:
    """Return how the trees of a checkpoint differ from those of `now`, by path."""
    changes: list[Change] = []
    for tree, found in now.trees.items():
        if tree not in manifest.trees:
            changes.append(Change("leaf", tree, "absent", "a tree"))
            continue
        then = [state for state in manifest.states if state.tree == tree]
        states = [state for state in now.states if state.tree == tree]
        changes += _by_path("state", tree, _texts(then), _texts(states))
        old = {leaf.path: leaf_text(leaf) for leaf in manifest.trees[tree]}
        new = {item.leaf.path: leaf_text(item.leaf) for item in found}
        changes += _by_path("leaf", tree, old, new)
    return changes


def _texts(states: Sequence[StateRecord]) -> dict[str, str]:
    def text(state: StateRecord) -> str:
        version = f" version {state.version}" if state.version != 1 else ""
        fields = ", ".join(sorted(state.fields))
        return f"{state.name}({fields}){version}"

    return {state.path: text(state) for state in states}


def leaf_text(leaf: Leaf) -> str:
    """Return the type of a leaf as a person would write it: `float32[4, 3]`."""
    text = f"{leaf.dtype}{list(leaf.shape)}"
    return text if leaf.kind == "array" else f"{leaf.kind} of {text}"


def _by_path(
    kind: Kind, tree: str, then: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[Change]:
    for path in {**then, **now}:
        old, new = then.get(path, "absent"), now.get(path, "absent")
        if old != new:
            yield Change(kind, f"{tree}{path}", old, new)
