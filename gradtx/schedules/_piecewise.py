"""Go through given values at given steps, in jumps or smoothly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Numeric,
    check_non_negative,
    scalar_dtype,
    schedule,
)
from gradtx.schedules._cosine import half_cosine
from gradtx.schedules._steps import aligned, check_steps

BLENDS = {
    "linear": lambda start, end, x: (end - start) * x + start,
    "cosine": lambda start, end, x: (start - end) * half_cosine(x, 1.0) + end,
}


@schedule
def piecewise_constant_schedule(
    init_value: Numeric, boundaries_and_scales: Mapping[int, Numeric] | None = None
):
    """Multiply a value by a factor at each of the given steps.

    `value(t) = init·Π scale_i` over all boundaries `b_i ≤ t`

    Args:
      init_value: the value before the first boundary.
      boundaries_and_scales: for each boundary, a step, the factor from there on, 0 or
        more.

    Raises:
      ArgumentError: if a boundary is no plain number, or a factor is negative.

    Example:
      >>> import gradtx
      >>> drop = gradtx.schedules.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
      >>> [float(drop(t)) for t in (9, 10, 19, 20)]
      [1.0, 0.5, 0.5, 0.25]

    Source: He et al. 2015, arXiv:1512.03385, section 4.2 (a tenth at 32k and 48k).
    """
    boundaries, scales = _knots(boundaries_and_scales)

    def at(step):
        step, *bounds = aligned(step, *boundaries)
        return _values(init_value, scales)[_passed(step, bounds)]

    return at


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: Numeric,
    boundaries_and_scales: Mapping[int, Numeric] | None = None,
):
    """Move from each of the given values to the next, along lines or half cosines.

    `value(t) = v_i + (v_(i+1) − v_i)·s(x)`, with `x = (t − b_i)/(b_(i+1) − b_i)`
    between the boundaries `b_i` and `b_(i+1)`, `v_i = init·scale_1·…·scale_i`,
    `b_0 = 0`; `s(x) = x`, or `½·(1 − cos(π·x))`

    Args:
      interpolate_type: "linear" or "cosine".
      init_value: the value at step 0.
      boundaries_and_scales: for each boundary, a step, the factor between the values
        at the boundary before and at this one, 0 or more.

    Raises:
      ArgumentError: if `interpolate_type` is neither, a boundary is no plain number,
        or a factor is negative.

    Example:
      >>> import gradtx
      >>> knots = {4: 0.5, 8: 0.0}
      >>> path = gradtx.schedules.piecewise_interpolate_schedule("linear", 1.0, knots)
      >>> [float(path(t)) for t in (0, 2, 4, 6, 8, 9)]
      [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    Source: Smith 2015, arXiv:1506.01186, section 3.1 (linear between bounds);
    Loshchilov & Hutter 2016, arXiv:1608.03983, equation 5 (cosine).
    """
    if interpolate_type not in BLENDS:
        raise ArgumentError(
            f'interpolate_type must be "linear" or "cosine", got {interpolate_type!r}.'
        )
    return interpolated(interpolate_type, init_value, *_knots(boundaries_and_scales))


def interpolated(
    kind: str,
    init_value: Numeric,
    boundaries: Sequence[float],
    scales: Sequence[Numeric],
) -> Callable[[jax.Array], jax.Array]:
    """Return the function of `piecewise_interpolate_schedule`.

    Args:
      kind: a key of `BLENDS`.
      init_value: the value at step 0.
      boundaries: steps that do not decrease. Equal ones make a jump.
      scales: the factor of each boundary.
    """
    # a part without steps is never looked at; its length only must not be 0
    parts = itertools.pairwise([0, *boundaries])
    lengths = [float(end - begin) or 1.0 for begin, end in parts]

    def at(step):
        step, *bounds = aligned(step, *boundaries)
        values, i = _values(init_value, scales), _passed(step, bounds)
        begins = jnp.asarray([0, *bounds], step.dtype)
        spans = jnp.asarray([*lengths, 1.0], scalar_dtype())
        x = jnp.clip((step - begins[i]).astype(scalar_dtype()) / spans[i], 0, 1)
        end = values[jnp.minimum(i + 1, len(scales))]
        return BLENDS[kind](values[i], end, x)

    return at


def _knots(boundaries_and_scales: Mapping[int, Any] | None):
    """Return the boundaries in order and their factors, once they are checked."""
    given = boundaries_and_scales or {}
    check_steps(**{f"boundaries_and_scales key {b!r}": b for b in given})
    check_non_negative(**{f"boundaries_and_scales[{b}]": s for b, s in given.items()})
    boundaries = sorted(given)
    return boundaries, [given[b] for b in boundaries]


def _values(init_value: Numeric, scales: Sequence[Numeric]) -> jax.Array:
    """Return the values at step 0 and at each boundary."""
    factors = [jnp.asarray(f, scalar_dtype()) for f in (init_value, *scales)]
    return jnp.cumprod(jnp.stack(factors))


def _passed(step: jax.Array, boundaries: Sequence[float]) -> jax.Array:
    """Return how many boundaries the step is at or past."""
    bounds = jnp.asarray(boundaries, step.dtype)
    return jnp.searchsorted(bounds, step, side="right", method="compare_all")
