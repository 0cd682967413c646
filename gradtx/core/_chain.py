"""Compose transformations: one link's updates are the next one's gradients."""

from __future__ import annotations

import collections
import functools
import keyword
import re
from collections.abc import Sequence
from typing import Any

from gradtx.core._basic import identity
from gradtx.core._errors import ArgumentError
from gradtx.core._roles import Inner
from gradtx.core._stages import check_links
from gradtx.core._transformation import (
    GradientTransformation,
    as_transformation,
    transformation,
)
from gradtx.core._types import Link


@transformation
def chain(*links: Link, deliberate: bool = False):
    """Apply links one after the other.

    `u ← link_n(… link_2(link_1(g)))`

    The state is a named tuple whose fields are the names of the links: `state[0]`,
    `state.scale_by_adam.nu` and `state["scale_by_adam"]` all work, and a link put
    between two others moves no other link's state. A name that comes twice gets
    `_2`, `_3`.

    Args:
      *links: transformations, raw pairs `(init, update)` or optax transformations.
        No link at all is the identity.
      deliberate: whether this order of the links is meant, so that no `OrderWarning`
        is given. It says nothing of the order inside a link, or around this chain.

    Raises:
      ArgumentError: if an argument is no transformation, if two links cannot be in one
        chain, or if `update` gets a state with another number of links.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9), gradtx.scale(-0.1))
      >>> tx.init({"w": jnp.zeros(2)})._fields
      ('clip', 'trace', 'scale')

    Source: composition of functions, each with a state of its own.
    """
    made = [as_transformation(link) for link in links]
    if not made:
        return identity()
    names = link_names(made)
    check_links("chain", names, [link.order for link in made], deliberate)
    return _composed(names, made)


@transformation
def named_chain(*named_links: tuple[str, Link], deliberate: bool = False):
    """Apply links one after the other, under names of the caller's choice.

    The state is that of `chain`, with these names for fields. Characters that no
    Python name can have become underscores; `state["my-link"]` finds its field.

    Args:
      *named_links: pairs `(name, transformation)`. Names must be unique.
      deliberate: as in `chain`.

    Raises:
      ArgumentError: if two names are equal, an argument is no such pair, or two links
        cannot be in one chain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.named_chain(("smooth", gradtx.ema(0.9)), ("sign", gradtx.scale(-1)))
      >>> tx.init({"w": jnp.zeros(2)})["smooth"].count
      Array(0, dtype=int32)

    Source: `chain`, with names.
    """
    for pair in named_links:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        ):
            raise ArgumentError(
                f"each argument must be a pair (name, transformation), got {pair!r}."
            )
    names = [_field(name) for name, _ in named_links]
    if twice := [n for n, k in collections.Counter(names).items() if k > 1]:
        raise ArgumentError(f"names must be unique, got {twice[0]!r} more than once.")
    made = [as_transformation(link) for _, link in named_links]
    check_links("named_chain", names, [link.order for link in made], deliberate)
    return _composed(names, made)


def _composed(names: Sequence[str], links: Sequence[GradientTransformation]) -> Any:
    forms = [link.traits.form for link in links]
    if "pairs" in forms and "gradients" in forms:
        pairs = names[forms.index("pairs")]
        raise ArgumentError(
            f"{pairs} steps on pairs of parameters, and {names[forms.index('gradients')]} "
            f"on parameters: they fit no chain. Put the other links into {pairs}."
        )
    make = chain_state(tuple(names))

    def init(params):
        return make(*(link.init(params) for link in links))

    def update(updates, state, params=None, **extra):
        if len(state) != len(links):
            raise ArgumentError(
                f"the state has {len(state)} links and the chain {len(links)}: it was "
                "made by another optimizer. Make it with this one's init."
            )
        made = []
        for link, old in zip(links, state, strict=True):
            updates, new = link.update(updates, old, params, **extra)
            made.append(new)
        return updates, make(*made)

    # what wraps `update` keeps it: see `links_of`
    update.links = tuple(links)  # pyright: ignore[reportFunctionMemberAccess]
    return init, update


def links_of(tx: GradientTransformation) -> tuple[GradientTransformation, ...]:
    """Return the links of a chain, also of one under a name, such as `adam(1e-3)`.

    Its state is a tuple of theirs, in this order. What is no chain has none.
    """
    return getattr(tx.update, "links", ())


class _Lookup:
    """What the states of chains add to named tuples: fields by string."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return getattr(self, _field(index))
        return super().__getitem__(index)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._fields, tuple(self))  # type: ignore[attr-defined,arg-type]


@functools.cache
def chain_state(names: tuple[str, ...]) -> Any:
    """Return the named tuple for links of these names, always the same class."""
    bare = collections.namedtuple("ChainState", names)
    space = {"__slots__": (), "__annotations__": dict.fromkeys(names, Inner)}
    return type("ChainState", (_Lookup, bare), space | {"__module__": __name__})


def is_chain_state(state: Any) -> bool:
    """Say whether `state` is that of a chain: a tuple of its links' states."""
    return isinstance(state, _Lookup)


def _restored(names: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return chain_state(names)(*values)


def link_names(links: Sequence[GradientTransformation]) -> tuple[str, ...]:
    """Return the names under which a chain files its links' states."""
    unique: list[str] = []
    for link in links:
        name = candidate = _field(link.name)
        number = 1
        while candidate in unique:
            number += 1
            candidate = f"{name}_{number}"
        unique.append(candidate)
    return tuple(unique)


def _field(name: str) -> str:
    """Return `name` as the name of a field."""
    field = re.sub(r"\W", "_", name, flags=re.ASCII)
    plain = re.match(r"[A-Za-z]", field) and not keyword.iskeyword(field)
    return field if plain else f"link_{field.lstrip('_')}"
