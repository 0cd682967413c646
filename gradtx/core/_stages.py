"""Check the order of the parts of an optimizer where they are put together.

Each transformation knows the parts in it whose place matters, in the order in which
they act. A chain looks at pairs from different links, a wrapper at itself and what is
inside: what is wrong within a part has been told when that part was made.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gradtx.core import _call
from gradtx.core._errors import ArgumentError, OrderWarning
from gradtx.core._stage_rules import AROUND, SEQUENCE, Part, Rule
from gradtx.core._traits import Traits

#: Arguments of wrappers that select the leaves on which the inside acts.
_SELECTING = ("mask", "param_labels")


def order_of(
    call: _call.Call,
    traits: Traits,
    meant: tuple[Part, ...] | None,
    links: Sequence[Any],
    inside: Sequence[Any],
) -> tuple[Part, ...]:
    """Return the parts of a new transformation, and warn of what it is around.

    What is declared to be no part itself stands for another one, or is a chain, or a
    wrapper.

    Args:
      call: the call that makes it.
      traits: what is declared of it.
      meant: the parts of the transformation that its factory returned, if it did.
      links: its links, if it is a chain.
      inside: the transformations among its arguments. They act side by side, or one at
        a time.

    Raises:
      ArgumentError: if it can never be around one of them.
    """
    if traits.stage == "measure":
        return ()
    own = (_part(call, traits),) if traits.stage or traits.negates else ()
    if not own and meant is not None:
        return meant
    if not own and links:
        return tuple(part for link in links for part in link.order)
    if not inside:
        return own
    given = call.arguments
    masks = tuple(m for name in _SELECTING if (m := given.get(name)) is not None)
    parts = [
        part._replace(leaves=((masks, index), *part.leaves)) if masks else part
        for index, tx in enumerate(inside)
        for part in tx.order
    ]
    for a in own:
        _check_around(a, parts)
    return (*own, *parts)


def _part(call: _call.Call, traits: Traits) -> Part:
    axes = call.arguments.get("axis_name") or ()
    return Part(
        call.factory.__name__,
        traits.stage,
        traits.negates,
        examples=traits.form == "examples",
        skips=call.arguments.get("skip") is not None,
        axes=tuple(axes) if isinstance(axes, (tuple, list)) else (axes,),
    )


def _check_around(a: Part, inside: Sequence[Part]) -> None:
    """Warn where a wrapper is around what it must not be."""
    scaled = any(part.stage == "loss_scale" for part in inside)
    told = set()
    for b in inside:
        rule = AROUND.get((a.stage, b.stage))
        if rule is None or b.stage in told or not rule.holds(a, b):
            continue
        # the loss scale has left out the NaN before it gets into the sum
        if (a.stage, b.stage) == ("accumulate", "guard") and scaled:
            continue
        told.add(b.stage)
        found = _text(rule, a.name, b.name)
        if rule.impossible:
            raise ArgumentError(found, a.name)
        meant = "If this is meant, filter OrderWarning with Python's warnings."
        _warn(f"{a.name}: {found} {meant}")


def check_links(
    name: str,
    links: Sequence[str],
    orders: Sequence[Sequence[Part]],
    deliberate: bool,
) -> None:
    """Warn of links of a chain that stand in a wrong order.

    Args:
      name: the factory of the chain.
      links: the names of its links.
      orders: the parts of each.
      deliberate: whether only what is impossible is told.

    Raises:
      ArgumentError: if two links cannot be in one chain.
    """
    before: list[tuple[int, Part]] = []
    told = set()
    for number, order in enumerate(orders):
        for b in order:
            for earlier, a in before:
                rule = SEQUENCE.get((a.stage, b.stage))
                if rule is None or (earlier, number) in told:
                    continue
                if not (rule.holds(a, b) and _meet(a, b)):
                    continue
                told.add((earlier, number))
                found = _text(rule, _named(links[earlier], a), _named(links[number], b))
                if rule.impossible:
                    raise ArgumentError(found)
                if not deliberate:
                    meant = f"If this order is meant: {name}(..., deliberate=True)."
                    _warn(f"{name}: {found} {meant}")
        before += [(number, part) for part in order]


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Give no warning: what is made again has been told when it was made."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


_silent = contextvars.ContextVar("_silent", default=False)


def unpickled(rebuild: Callable[..., Any], *arguments: Any) -> Any:
    """Make again what has been made once."""
    with unchecked():
        return rebuild(*arguments)


def _meet(a: Part, b: Part) -> bool:
    """Say whether some leaf may go through both parts."""
    return all(
        one is other or _call.same(one, other)
        for one, other in zip(a.leaves, b.leaves, strict=False)
    )


def _named(link: str, part: Part) -> str:
    own = link == part.name or link.startswith(f"{part.name}_")
    return link if own else f"{part.name} (in {link})"


def _text(rule: Rule, a: str, b: str) -> str:
    return f"{rule.wrong}. {rule.instead}".format(a=a, b=b)


def _warn(message: str) -> None:
    """Warn at the line of the caller that called into gradtx."""
    if _silent.get():
        return
    level, frame = 1, sys._getframe(0)
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, OrderWarning, stacklevel=level)


@functools.cache
def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("gradtx", "jax", "contextlib")
