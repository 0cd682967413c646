"""Say what one link does to each leaf, from the arguments of its call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core import (
    Call,
    GradientTransformation,
    identity,
    is_static,
    resolve_mask,
    set_to_zero,
    slashed,
)

#: Endings of arguments that choose leaves.
CHOICES = ("mask", "labels")
#: Arguments that are numbers by which a link scales, and whether it turns the sign too.
_RATES = {"learning_rate": True, "step_size": False, "step_size_fn": False}


class Around(NamedTuple):
    """What is around a link.

    Attributes:
      wrappers: the wrappers, outermost first, as their calls.
      sometimes: whether one of them has a condition.
      aside: whether one of them applies updates of another transformation, not its.
    """

    wrappers: tuple[str, ...] = ()
    sometimes: bool = False
    aside: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What one link does to a leaf.

    Attributes:
      text: the link, as its call.
      name: its name.
      around: what is around it.
      opaque: whether nothing is known of it.
      zero: whether it is `set_to_zero`.
      scales: whether it does nothing but scale.
      factor: the number by which it scales at step 0, sign included; `None` for none.
      schedule: the schedule of that number, as its call; empty for none.
      decay: its weight decay at step 0.
      decays: whether it does nothing but add that decay.
      rests: whether updates of zero stay zero.
    """

    text: str
    name: str
    around: Around
    opaque: bool = False
    zero: bool = False
    scales: bool = False
    factor: float | None = None
    schedule: str = ""
    decay: float = 0.0
    decays: bool = False
    rests: bool = False


class Acts:
    """What acts on one leaf: the steps in order, and the labels that chose them."""

    def __init__(self, steps: list[Step], labels: list[str] | None = None):
        self.steps = list(steps)
        self.labels = list(labels or [])

    def add(self, other: Acts) -> None:
        """Append what acts later."""
        self.steps += [step for step in other.steps if step not in self.steps]
        self.labels += [label for label in other.labels if label not in self.labels]


#: What acts on each leaf, by its path.
Found = dict[str, Acts]


def paths(tree: Any) -> list[str]:
    """Return the paths of the leaves of a tree."""
    return [slashed(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def link(tx: GradientTransformation, tree: Any, around: Around) -> Found:
    """Return what a link without another one inside does to each leaf of `tree`."""
    arguments = tx.call.arguments
    names = set(arguments)
    decay = arguments.get("weight_decay")
    if is_static(decay) and decay == 0:
        decay = None
    decays = "weight_decay" in names and names <= {"weight_decay", "mask"}
    if tx.call.factory is identity or (decays and decay is None):
        return {path: Acts([]) for path in paths(tree)}
    factor, schedule = _rate(tx.call)
    rests = not (tx.traits.needs or tx.traits.stochastic or "P4" in tx.traits.exempt)
    step = Step(
        text=call_text(tx.call),
        name=tx.name,
        around=around,
        opaque=any(_is_foreign(name, x) for name, x in arguments.items()),
        zero=tx.call.factory is set_to_zero,
        scales=factor is not None and names <= {*_RATES, "flip_sign"},
        factor=factor,
        schedule=schedule,
        decay=0.0 if decay is None else _at_start(decay),
        decays=decays,
        rests=rests and decay is None,
    )
    mask = arguments.get("mask")
    flags = None if mask is None else jax.tree.leaves(resolve_mask(mask, tree))
    return {
        path: Acts([step] if flags is None or flags[i] else [])
        for i, path in enumerate(paths(tree))
    }


def opaque(tx: GradientTransformation, tree: Any, around: Around) -> Found:
    """Return what a pair made by hand does to each leaf: nobody knows."""
    step = Step(f"{tx.name} (opaque)", tx.name, around, opaque=True)
    return {path: Acts([step]) for path in paths(tree)}


def call_text(call: Call, *, by_name: bool = False) -> str:
    """Print a call without what chooses leaves and what it wraps.

    Args:
      call: the call.
      by_name: whether all arguments are printed with their names.
    """
    kept = {
        name: value
        for name, value in call.arguments.items()
        if not (name.endswith(CHOICES) or has_transformation(value))
    }
    if not by_name:
        return repr(Call(call.factory, kept))
    shown = {name: _argument_text(call, name) for name in kept}
    inside = ", ".join(f"{name}={text}" for name, text in shown.items() if text)
    return f"{call.factory.__name__}({inside})"


def is_transformation(x: Any) -> bool:
    """Say whether `x` is a transformation."""
    return isinstance(x, GradientTransformation)


def has_transformation(value: Any) -> bool:
    """Say whether there is a transformation anywhere in an argument."""
    return any(
        map(is_transformation, jax.tree.leaves(value, is_leaf=is_transformation))
    )


def _argument_text(call: Call, name: str) -> str:
    """Print one argument; nothing where it is the default."""
    alone = repr(Call(call.factory, {name: call.arguments[name]}))
    return alone[len(call.factory.__name__) + 1 : -1].removeprefix(f"{name}=")


def _rate(call: Call) -> tuple[float | None, str]:
    """Return the number by which a link scales at step 0, and its schedule."""
    arguments: Mapping[str, Any] = call.arguments
    for name, turns in _RATES.items():
        if name in arguments:
            value = arguments[name]
            sign = -1.0 if turns and arguments.get("flip_sign", True) else 1.0
            size = 1.0 if value is None else _at_start(value)
            return sign * size, _argument_text(call, name) if callable(value) else ""
    return None, ""


def _at_start(value: Any) -> float:
    """Return a number, or a schedule at step 0; NaN where it is traced."""
    found: Any = value(jnp.zeros((), jnp.int32)) if callable(value) else value
    return math.nan if isinstance(found, Tracer) else float(found)


def _is_foreign(name: str, value: Any) -> bool:
    """Say whether an argument is a function of which nothing is known."""
    known = name in _RATES or name == "weight_decay" or name.endswith(CHOICES)
    own = (getattr(value, "__module__", None) or "").split(".")[0] == "gradtx"
    return callable(value) and not known and not own
