"""Take an optimizer apart: the links that act on each leaf, in order.

Nothing here knows an optimizer. A chain knows its links, and a transformation remembers
its call: the factory, called without its wrapper, returns what it stands for. A
combinator shows which leaves it gives to a transformation inside by what it passes to
that one's `init`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from gradtx.core import (
    Call,
    EmptyState,
    GradientTransformation,
    Selector,
    deferred_in,
    is_registered,
    links_of,
)
from gradtx.telemetry._links import (
    CHOICES,
    Acts,
    Around,
    Found,
    call_text,
    is_transformation,
    link,
    opaque,
    paths,
)


def walk(
    tx: GradientTransformation, tree: Any, around: Around
) -> tuple[Found, list[Selector]]:
    """Return what acts on each leaf of a tree, and the selectors met on the way.

    Args:
      tx: any transformation.
      tree: a pytree of shape-and-dtypes.
      around: what is around `tx`.
    """
    call = tx.call
    if call.factory is GradientTransformation:
        return opaque(tx, tree, around), []
    put_off = deferred_in(call)
    if put_off and not is_registered(put_off.call.factory):
        return opaque(tx, tree, around), []
    met = _selectors(list(call.arguments.values()))
    if parts := links_of(tx):
        found, more = _in_order(parts, tree, around)
    elif put_off:
        found, more = walk(put_off.make(), tree, around)
    elif is_transformation(meant := _unfolded(call)):
        found, more = walk(meant, tree, around)
    elif inner := _inner(call):
        found, more = _wrapped(call, inner, tree, around)
    else:
        found, more = link(tx, tree, around), []
    return found, met + more


def _in_order(parts: Any, tree: Any, around: Around) -> tuple[Found, list[Selector]]:
    found: Found = {path: Acts([]) for path in paths(tree)}
    met: list[Selector] = []
    for part in parts:
        added, more = walk(part, tree, around)
        met += more
        for path, acts in added.items():
            found[path].add(acts)
    return found, met


#: The name of an argument, a label if it holds several, and the transformation.
_Inner = tuple[str, Any, GradientTransformation]


def _wrapped(
    call: Call, inner: list[_Inner], tree: Any, around: Around
) -> tuple[Found, list[Selector]]:
    found: Found = {path: Acts([]) for path in paths(tree)}
    met: list[Selector] = []
    chosen = any(name.endswith(CHOICES) for name in call.arguments)
    asks = any(callable(x) for n, x in call.arguments.items() if n.endswith("_fn"))
    text = call_text(call, by_name=True)
    for (argument, label, tx), seen in zip(inner, _seen(call, tree), strict=True):
        # the first argument makes the updates; another one serves the wrapper
        aside = argument != inner[0][0]
        shown = f"{text} as {argument}" if aside else text
        within = Around(
            around.wrappers if chosen else (*around.wrappers, shown),
            around.sometimes or asks,
            around.aside or aside,
        )
        if seen is None:
            continue
        below, more = walk(tx, seen, within)
        met += more
        for path, acts in found.items():
            for match in _matching(path, below, found):
                acts.add(Acts([], [str(label)] if chosen and label is not None else []))
                acts.add(below[match])
    return found, met


def _unfolded(call: Call) -> Any:
    """Return what the factory of a call returns: a transformation or a pair."""
    plain = getattr(call.factory, "__wrapped__", None)
    if plain is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has warned when it was called
        return _called(plain, call.arguments)


def _called(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    bound = inspect.BoundArguments(inspect.signature(factory), dict(arguments))
    return factory(*bound.args, **bound.kwargs)


def _inner(call: Call) -> list[_Inner]:
    """Return the transformations among the arguments that act."""
    found: list[_Inner] = []

    def note(*item: Any) -> GradientTransformation:
        found.append(item)
        return item[-1]

    _replaced(call, note)
    return found


def _seen(call: Call, tree: Any) -> list[Any]:
    """Return the tree that each of them gets to see, `None` where `init` calls none."""
    seen: list[Any] = []

    def spied(argument: str, label: Any, tx: Any) -> GradientTransformation:
        seen.append(None)
        return _spy(seen, len(seen) - 1, tx)

    wrapper = _called(call.factory, _replaced(call, spied))
    jax.eval_shape(wrapper.init, tree)
    return seen


def _spy(seen: list[Any], index: int, tx: GradientTransformation) -> Any:
    """Return a transformation that does nothing but note what `init` gets."""

    def init(params: Any) -> EmptyState:
        if seen[index] is None:
            shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
            seen[index] = jax.tree.map(shape, params)
        return EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return updates, state

    return GradientTransformation(init, update, traits=tx.traits)


def _replaced(call: Call, change: Callable[[str, Any, Any], Any]) -> dict[str, Any]:
    """Return the arguments of a call with the transformations that act changed."""
    made = dict(call.arguments)
    for name, value in made.items():
        if name.startswith("measure") or name.endswith("_fn"):
            continue  # they look on, or are asked for a number
        if isinstance(value, Mapping):
            made[name] = {k: _mapped(change, name, k, v) for k, v in value.items()}
        else:
            made[name] = _mapped(change, name, None, value)
    return made


def _mapped(
    change: Callable[[str, Any, Any], Any], name: str, label: Any, value: Any
) -> Any:
    return jax.tree.map(
        lambda x: change(name, label, x) if is_transformation(x) else x,
        value,
        is_leaf=is_transformation,
    )


def _matching(path: str, below: Found, beside: Found) -> Iterator[str]:
    """Yield the leaves of an inner tree that hold the leaf at `path` of the outer one."""
    if path in below:
        yield path
    elif parts := [inner for inner in below if inner.startswith(f"{path}/")]:
        yield from parts  # one leaf has become several
    elif not any(inner in beside for inner in below):
        # all leaves have become others: one of two sets, or one vector
        yield from [inner for inner in below if path.endswith(f"/{inner}")] or below


def _selectors(value: Any) -> list[Selector]:
    """Return the selectors in arguments, and those of which they are made."""
    found: list[Selector] = []
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, Selector):
            found += [leaf, *_selectors(list(leaf.call.arguments.values()))]
    return found
