"""Carry saved states over to newer classes, and to chains with other links."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.checkpoint._changes import Change, leaf_text
from gradtx.checkpoint._leaves import COPY, Found, Listing, name_in
from gradtx.checkpoint._records import Leaf, Manifest, StateRecord
from gradtx.core import ArgumentError, MismatchError

#: The arrays of each field of a state, by their paths below the field; `""` for a
#: field that is one array.
Fields = Mapping[str, Mapping[str, np.ndarray]]
_MIGRATIONS: dict[tuple[str, int], Callable[[Fields], Fields]] = {}


def migration(name: str, version: int) -> Callable[[Any], Any]:
    """Register how states of a class become those of its next schema version.

    A state class says its version as `schema_version = 2` in its body; without, it is
    1. `restore` applies all migrations from the version that was saved to the current.

    Args:
      name: the name of the class, such as `"ScaleBySignumState"`.
      version: the version from which to go on to the next, 1 or more.

    Returns:
      A decorator for a function from the saved fields to those of the next version.
      Each field is a dict of NumPy arrays by path below the field, `""` for a single
      one.

    Raises:
      ArgumentError: if there is one already.

    Example:
      >>> import gradtx
      >>> @gradtx.checkpoint.migration("ScaleByDoctestState", 1)
      ... def rename(fields):
      ...     return {"mu": fields["momentum"]}
    """
    if (name, version) in _MIGRATIONS:
        raise ArgumentError(
            f"there is a migration of {name} from version {version} already.",
            "migration",
        )

    def register(function: Callable[[Fields], Fields]) -> Callable[[Fields], Fields]:
        _MIGRATIONS[name, version] = function
        return function

    return register


class Source(NamedTuple):
    """Where the value of a leaf comes from.

    Attributes:
      leaf: its record: path, shape and dtype.
      number: the number of a stored array, or None.
      value: the array, where it is not a stored one.
      name: what it goes by in another chain.
    """

    leaf: Leaf
    number: int | None
    value: Any
    name: tuple[str, ...]


def sources_of(manifest: Manifest, trees: Sequence[str]) -> dict[str, list[Source]]:
    """Return the leaves of some saved trees, in order."""
    found, number = {}, 0
    for tree, leaves in manifest.trees.items():
        items = []
        for leaf in leaves:
            name: tuple[str, ...] = (tree, leaf.path)
            if leaf.state is not None:
                state = manifest.states[leaf.state]
                below = leaf.path[len(state.path) + 1 + len(leaf.field) :]
                name = name_in(state, leaf.field, below)
            items.append(Source(leaf, number, None, name))
            number += 1
        if tree in trees:
            found[tree] = items
    return found


def outdated(manifest: Manifest, now: Listing) -> dict[int, int]:
    """Return the version to bring each saved state to, by position, where it is newer.

    Raises:
      MismatchError: if a migration is missing, or the checkpoint is the newer one.
    """
    versions = {state.name: state.version for state in now.states}
    found = {}
    for index, state in enumerate(manifest.states):
        wanted = versions.get(state.name, state.version)
        if wanted < state.version:
            raise MismatchError(
                f"{state.tree}{state.path}: {state.name} has version {state.version} in "
                f"the checkpoint, and this program knows version {wanted}. Restore it "
                "with the newer program that saved it."
            )
        for version in range(state.version, wanted):
            if (state.name, version) not in _MIGRATIONS:
                raise MismatchError(
                    f"{state.tree}{state.path}: {state.name} has version "
                    f"{state.version} in the checkpoint and {wanted} here, and nothing "
                    f"says how to get from {version} to {version + 1}. Register it with "
                    f"@gradtx.checkpoint.migration({state.name!r}, {version})."
                )
        if wanted > state.version:
            found[index] = wanted
    return found


def migrated(
    sources: dict[str, list[Source]],
    states: Sequence[StateRecord],
    wanted: Mapping[int, int],
    now: Listing,
) -> tuple[dict[str, list[Source]], list[StateRecord]]:
    """Return leaves and states with outdated states brought to their new versions.

    Args:
      sources: the saved leaves; those of outdated states with their values.
      states: the saved states.
      wanted: what `outdated` returned.
      now: the listing of what they are restored into.
    """
    kinds = {state.name: state.fields for state in now.states}
    states = list(states)
    for index, version in wanted.items():
        state = states[index]
        fields: Any = {name: {} for name in state.fields}
        for item in sources.get(state.tree, ()):
            if item.leaf.state == index:
                fields[item.leaf.field][item.name[-1]] = item.value
        for step in range(state.version, version):
            fields = _MIGRATIONS[state.name, step](fields)
        states[index] = dataclasses.replace(
            state, version=version, fields=kinds[state.name]
        )
        made = [
            _made(state, index, field, below, value)
            for field, values in fields.items()
            for below, value in values.items()
        ]
        others = [i for i in sources.get(state.tree, ()) if i.leaf.state != index]
        sources = {**sources, state.tree: others + made}
    return sources, states


def _made(state: StateRecord, index: int, field: str, below: str, value: Any) -> Source:
    value = np.asarray(value)
    leaf = Leaf(
        path=f"{state.path}.{field}{below}",
        shape=value.shape,
        dtype=value.dtype.name,
        sha256="",
        state=index,
        field=field,
    )
    return Source(leaf, None, value, name_in(state, field, below))


def matched(
    sources: Sequence[Source], found: Sequence[Found]
) -> tuple[list[Source | None], list[Change]]:
    """Return for each leaf of a tree the saved one it continues, and what is left over.

    Leaves go by the links around them, the class of their state, its field and the path
    below; what the first leaves over goes by the innermost link only, and then by
    none, where but one pair fits. So wrapping an optimizer, or putting a link beside
    others, moves nothing. Where an optimizer became those of several groups, each goes
    on with its counts. A leaf that nothing fits has None.

    Raises:
      MismatchError: if it cannot be told which of several leaves is meant, or a leaf
        has another shape or dtype than the one that it continues.
    """
    result: list[Source | None] = [None] * len(found)
    left = list(sources)
    for key in (_in_full, _by_link, _by_class):
        new = _unique(
            (key(item.name), i) for i, item in enumerate(found) if not result[i]
        )
        old = _unique((key(item.name), item) for item in left)
        for name, index in new.items():
            result[index] = old.get(name)
        taken = {id(item) for item in result}
        left = [item for item in left if id(item) not in taken]
    counts = _shared(sources, found, result)
    result = [match or counts.get(i) for i, match in enumerate(result)]
    left = [item for item in left if all(item is not x for x in counts.values())]
    changes = []
    open_names = {_by_class(item.name) for item in left}
    for item, match in zip(found, result, strict=True):
        path = f"{item.name[0]}{item.leaf.path}"
        if match is None:
            if _by_class(item.name) in open_names:
                raise MismatchError(
                    f"{path}: several leaves of the checkpoint could go on here. Give "
                    "the links names of their own, with named_chain, or restore the "
                    "optimizer that was saved and carry its state over by hand."
                )
            changes.append(
                Change("leaf", path, "absent", f"{_first(item)}, begins anew")
            )
        elif leaf_text(match.leaf) != leaf_text(item.leaf):
            raise MismatchError(
                f"{path}: the checkpoint has {leaf_text(match.leaf)}, and here is "
                f"{leaf_text(item.leaf)}. Nothing carries the one over to the other: "
                "restore with the shapes and dtypes that were saved."
            )
    for item in left:
        path = f"{item.name[0]}{item.leaf.path}"
        changes.append(Change("leaf", path, leaf_text(item.leaf), "dropped"))
    return result, changes


def _first(item: Found) -> str:
    """Return the type of a leaf that begins anew, and where a counter begins."""
    text, value = leaf_text(item.leaf), item.value
    counts = text == "int32[]" and isinstance(value, jax.Array | np.ndarray)
    return f"{text} = {int(value)}" if counts else text


def _in_full(name: tuple[str, ...]) -> tuple[str, ...]:
    return name


def _by_link(name: tuple[str, ...]) -> tuple[str, ...]:
    if len(name) < 6:
        return name
    tree, group, links, *rest = name
    return (tree, group, links.rpartition(".")[2], *rest)


def _by_class(name: tuple[str, ...]) -> tuple[str, ...]:
    if len(name) < 6:
        return name
    tree, group, _, *rest = name
    return (tree, COPY * group.startswith(COPY), *rest)


def _shared(
    sources: Sequence[Source], found: Sequence[Found], result: Sequence[Source | None]
) -> dict[int, Source]:
    """Return the one scalar of then that those of several groups go on with."""
    old = _unique((_by_class(item.name), item) for item in sources if _is_scalar(item))
    taking: dict[tuple[str, ...], list[int]] = {}
    for i, item in enumerate(found):
        if _is_scalar(item) and len(item.name) == 6:
            taking.setdefault(_by_class(item.name), []).append(i)
    shared = {}
    for name, places in taking.items():
        groups = {found[i].name[1] for i in places}
        if name in old and len(groups) == len(places):
            shared.update({i: old[name] for i in places if result[i] is None})
    return shared


def _is_scalar(item: Source | Found) -> bool:
    return item.leaf.shape == ()


def _unique(pairs: Iterable[tuple[tuple[str, ...], Any]]) -> dict[tuple[str, ...], Any]:
    """Return values by name, without the names that come more than once."""
    found: dict[tuple[str, ...], Any] = {}
    twice = set()
    for name, value in pairs:
        if name in found:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}
