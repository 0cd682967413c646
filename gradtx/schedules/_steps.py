"""Measure a step against counts of steps, exactly where all are integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, Numeric, is_static, scalar_dtype


def check_steps(**arguments: Any) -> None:
    """Raise `ArgumentError` where a named count of steps is no plain number.

    Args:
      **arguments: the counts by their names. They are not traced: what a schedule is
        made of depends on them. Whole floats such as 1e4 count as integers.
    """
    for name, value in arguments.items():
        if not is_static(value) or value != value:
            raise ArgumentError(
                f"{name} must be a plain number of steps, got {value!r}. "
                "Give an integer, not an array or a traced value."
            )


def aligned(step: jax.Array, *counts: float) -> tuple[Any, ...]:
    """Return `step` and counts that may be compared with it and subtracted from it.

    An integer step stays an integer and keeps its dtype, and counts beyond that dtype
    become its largest number. Anything else becomes the widest float.

    Args:
      step: integer or floating, of any shape.
      counts: plain numbers; `math.inf` stands for a step that is never reached.
    """
    whole = all(c == math.inf or float(c).is_integer() for c in counts)
    if whole and jnp.issubdtype(step.dtype, jnp.integer):
        top = int(jnp.iinfo(step.dtype).max)
        return step, *(step.dtype.type(min(c, top)) for c in counts)
    return step.astype(scalar_dtype()), *map(float, counts)


def elapsed(step: jax.Array, begin: float, end: float = math.inf) -> jax.Array:
    """Return `min(max(step, begin), end) − begin`, the steps made since `begin`."""
    step, begin, end = aligned(step, begin, end)
    return jnp.clip(step, begin, end) - begin


def share(n: jax.Array, T: float) -> jax.Array:
    """Return `n/T`, and exactly 1 at `n = T`.

    Compiled, a division by a constant is a product with its inverse, which may pass 1
    by a rounding error: a root of `1 − n/T` would be NaN.
    """
    return jnp.where(n < T, n / T, 1)


def as_scalar(value: Numeric) -> Any:
    """Return a plain number as it is, and an array in the widest float enabled."""
    return value if is_static(value) else jnp.asarray(value).astype(scalar_dtype())


def transition(
    curve: Callable[[jax.Array, float], jax.Array],
    init_value: Numeric,
    end_value: Numeric,
    steps: float,
    begin: float = 0,
) -> Callable[[jax.Array], jax.Array]:
    """Return a function of the step that moves between two values along `curve`.

    `value(t) = (init − end)·curve(n, T) + end`, with `n = min(max(t − begin, 0), T)`
    and `T = steps`

    Args:
      curve: `(n, T) -> share of the way that is left`, 1 at n = 0 and 0 at n = T.
      init_value: the value up to step `begin`.
      end_value: the value from step `begin + steps` on.
      steps: length of the transition in updates, above 0.
      begin: the step at which the transition begins.
    """

    def at(step):
        n = elapsed(step, begin, begin + steps).astype(scalar_dtype())
        init, end = as_scalar(init_value), as_scalar(end_value)
        return (init - end) * curve(n, float(steps)) + end

    return at
