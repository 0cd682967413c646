"""List the leaves and states of trees, with what must be the same when they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.checkpoint._records import DTYPES, Leaf, StateRecord
from gradtx.core import (
    ArgumentError,
    Role,
    is_chain_state,
    key_data,
    roles,
    unpack,
)

#: Begins the group of states in a copy of before, which no other state continues.
COPY = "*"
_NUMBERS = {bool: "bool", int: "int", float: "float", complex: "complex"}


class Found(NamedTuple):
    """A leaf of a tree that is to be saved or restored into.

    Attributes:
      leaf: its record, with an empty digest.
      value: the array as it is stored: of a typed key its data, of a number an array
        of NumPy; an abstract value where the tree has one.
      name: what it goes by when states are carried over to another chain.
    """

    leaf: Leaf
    value: Any
    name: tuple[str, ...]


class Listing(NamedTuple):
    """All leaves and states of several trees.

    Attributes:
      trees: the leaves of each tree, by name.
      states: the states in them, with the positions to which leaves refer.
    """

    trees: dict[str, list[Found]]
    states: list[StateRecord]


def listed(trees: Mapping[str, Any]) -> Listing:
    """Return the leaves and states of trees; what is packed counts as the tree it holds.

    Raises:
      ArgumentError: if a leaf is something that no array file can hold.
    """
    listing = Listing({}, [])
    for name, tree in sorted(trees.items()):  # as the manifest, which numbers them
        nodes = list(_walk(unpack(tree), name, listing.states))
        listing.trees[name] = nodes
    return listing


class _Place(NamedTuple):
    """Where a walk through a tree has got to."""

    path: str = ""
    state: int | None = None
    field: str = ""
    links: str = ""
    group: str = ""  # keys between states
    inner: str = ""  # the path below the field


_ROOT = _Place()


def _walk(
    node: Any, tree: str, states: list[StateRecord], place: _Place = _ROOT
) -> Iterator[Found]:
    chain = is_chain_state(node)
    names = getattr(node, "_fields", None) if isinstance(node, tuple) else None
    fields: dict[str, str] = {}
    group = place.group + place.inner
    if names is not None and not chain:
        kinds = roles(node)
        fields = {name: kinds[name].value if name in kinds else "" for name in names}
        version = getattr(type(node), "schema_version", 1)
        cls = type(node).__name__
        states.append(
            StateRecord(tree, place.path, place.links, group, cls, version, fields)
        )
    index = len(states) - 1
    children, structure = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    if jax.tree_util.treedef_is_leaf(structure) and structure.num_leaves == 1:
        yield _leaf(node, tree, states, place)
        return
    for number, (keys, child) in enumerate(children):
        below = jax.tree_util.keystr(keys)
        path = place.path + below
        if names is None:
            here = place._replace(path=path, inner=place.inner + below)
        elif chain:
            links = f"{place.links}.{names[number]}".lstrip(".")
            here = _Place(path, links=links, group=group)
        else:
            field = names[number]
            copy = fields[field] == Role.SAVED.value
            inside = f"{COPY}{group}.{field}" if copy else group
            here = _Place(path, index, field, place.links, inside)
        yield from _walk(child, tree, states, here)


def _leaf(value: Any, tree: str, states: list[StateRecord], place: _Place) -> Found:
    where = f"{tree}{place.path}"
    kind, stored = _stored(value, where)
    spec = getattr(getattr(value, "sharding", None), "spec", None)
    leaf = Leaf(
        path=place.path,
        shape=tuple(stored.shape),
        dtype=stored.dtype.name,
        sha256="",
        kind=kind,
        state=place.state,
        field=place.field,
        spec=None if spec is None else _plain_spec(spec),
    )
    name: tuple[str, ...] = (tree, place.path)
    if place.state is not None:
        name = name_in(states[place.state], place.field, place.inner)
    return Found(leaf, stored, name)


def name_in(state: StateRecord, field: str, below: str) -> tuple[str, ...]:
    """Return what a leaf of a state goes by in another chain."""
    return (state.tree, state.group, state.links, state.name, field, below)


def _stored(value: Any, where: str) -> tuple[str, Any]:
    """Return the kind of a leaf, and the array that is stored of it."""
    if type(value) in _NUMBERS:
        return _NUMBERS[type(value)], np.asarray(value)
    dtype = getattr(value, "dtype", None)
    if dtype is None or not hasattr(value, "shape"):
        raise ArgumentError(
            f"{where}: expected an array or a number, got {type(value).__name__}. Give "
            "plain data, such as names and settings, as record=."
        )
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        names: list[str] = []
        abstract = jax.eval_shape(lambda key: _opened(key, names), value)
        data = key_data(value) if isinstance(value, jax.Array) else abstract
        return f"key:{names[0]}", data
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        if value.dtype.byteorder == ">":
            value = value.astype(value.dtype.newbyteorder("="))
    if dtype.name not in DTYPES:
        raise ArgumentError(
            f"{where}: an array of {dtype} cannot be stored. Leave it out, or give it as "
            "record=."
        )
    return "array", value


def _opened(key: jax.Array, names: list[str]) -> jax.Array:
    names.append(str(jax.random.key_impl(key)))
    return key_data(key)


def _plain_spec(spec: Any) -> tuple[Any, ...] | None:
    plain = tuple(list(s) if isinstance(s, tuple) else s for s in spec)
    known = all(s is None or isinstance(s, str | list) for s in plain)
    return plain if known else None


def counters(trees: Mapping[str, Any]) -> dict[str, int]:
    """Return the value of each counter in the states of trees, by tree and path."""
    listing, found = listed(trees), {}
    for tree, leaves in listing.trees.items():
        for leaf, value, _ in leaves:
            if leaf.state is None or leaf.shape:
                continue
            role = listing.states[leaf.state].fields[leaf.field]
            if role == Role.COUNT.value and is_here(value):
                found[f"{tree}{leaf.path}"] = int(value)
    return found


def is_here(value: Any) -> bool:
    """Say whether this process has all of an array."""
    return not isinstance(value, jax.Array) or value.is_fully_addressable
