"""Rise along a line first, then follow another curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Numeric,
    Schedule,
    check_non_negative,
    check_positive,
    is_static,
    schedule,
)
from gradtx.schedules._constant import constant_schedule
from gradtx.schedules._cosine import cosine_decay_schedule
from gradtx.schedules._exponential import exponential_decay
from gradtx.schedules._join import join_schedules
from gradtx.schedules._linear import linear_schedule
from gradtx.schedules._steps import as_scalar, check_steps


def after_warmup(
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: int,
    rest: Callable[[Any], Any],
) -> Schedule:
    """Return a line from one value to another, followed by `rest`, counted from 0."""
    check_steps(warmup_steps=warmup_steps)
    check_non_negative(warmup_steps=warmup_steps)
    line = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([line, rest], [warmup_steps])


@schedule
def warmup_constant_schedule(
    init_value: Numeric, peak_value: Numeric, warmup_steps: int
):
    """Rise along a line, then stay.

    `linear_schedule(init, peak, warmup_steps)`, then `peak`

    Args:
      init_value: the value at step 0.
      peak_value: the value from step `warmup_steps` on.
      warmup_steps: length of the rise in updates, 0 or more.

    Raises:
      ArgumentError: if `warmup_steps` is no plain number of 0 or more.

    Example:
      >>> import gradtx
      >>> warm = gradtx.schedules.warmup_constant_schedule(0.0, 1.0, warmup_steps=4)
      >>> [float(warm(t)) for t in (0, 1, 4, 9)]
      [0.0, 0.25, 1.0, 1.0]

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2 (gradual warm-up).

    Differs from optax: without warm-up the value is the peak; there it stays
    `init_value`, often 0, for ever.
    """
    return after_warmup(
        init_value, peak_value, warmup_steps, constant_schedule(peak_value)
    )


@schedule
def warmup_cosine_decay_schedule(
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: int,
    decay_steps: int,
    end_value: Numeric = 0.0,
    exponent: Numeric = 1.0,
):
    """Rise along a line, then fall along half a cosine.

    `linear_schedule(init, peak, warmup_steps)`, then
    `cosine_decay_schedule(peak, decay_steps − warmup_steps, end/peak, exponent)`

    Args:
      init_value: the value at step 0.
      peak_value: the value at step `warmup_steps`. At 0 the cosine stays at 0,
        whatever `end_value`.
      warmup_steps: length of the rise in updates, 0 or more.
      decay_steps: length of the whole schedule in updates, warm-up included, so at
        least `warmup_steps`. Where they are equal no step is left for the cosine.
      end_value: the value from step `decay_steps` on.
      exponent: the power of the cosine, 0 or more.

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> import gradtx
      >>> rate = gradtx.schedules.warmup_cosine_decay_schedule(0.0, 1.0, 4, 12, 0.5)
      >>> [float(rate(t)) for t in (0, 2, 4, 8, 12)]
      [0.0, 0.5, 1.0, 0.75, 0.5]

    Source: He et al. 2018, arXiv:1812.01187, section 5.1 (cosine decay after a linear
    warm-up).
    """
    check_steps(warmup_steps=warmup_steps, decay_steps=decay_steps)
    check_positive(decay_steps=decay_steps)
    if decay_steps < warmup_steps:
        raise ArgumentError(
            f"decay_steps must be at least warmup_steps = {warmup_steps!r}, got "
            f"{decay_steps!r}. It counts the whole schedule, warm-up included."
        )
    fall = decay_steps - warmup_steps
    rest = (
        cosine_decay_schedule(peak_value, fall, _ratio(end_value, peak_value), exponent)
        if fall
        else constant_schedule(end_value)
    )
    return after_warmup(init_value, peak_value, warmup_steps, rest)


@schedule
def warmup_exponential_decay_schedule(
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Numeric,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Numeric | None = None,
):
    """Rise along a line, then multiply by one factor per period.

    `linear_schedule(init, peak, warmup_steps)`, then `exponential_decay` from `peak`

    Args:
      init_value: the value at step 0.
      peak_value: the value at step `warmup_steps`.
      warmup_steps: length of the rise in updates, 0 or more.
      transition_steps, decay_rate, staircase, end_value: as in `exponential_decay`.
      transition_begin: updates at the peak before the decay begins.

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> import gradtx
      >>> rate = gradtx.schedules.warmup_exponential_decay_schedule(0.0, 1.0, 4, 2, 0.25)
      >>> [float(rate(t)) for t in (0, 2, 4, 5, 6)]
      [0.0, 0.5, 1.0, 0.5, 0.25]

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2, before the decay of
    Szegedy et al. 2015, arXiv:1512.00567, section 8.
    """
    rest = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return after_warmup(init_value, peak_value, warmup_steps, rest)


def _ratio(part: Numeric, whole: Numeric) -> Any:
    """Return `part/whole`, or 0 where `whole` is 0."""
    part, whole = as_scalar(part), as_scalar(whole)
    if is_static(whole):
        return part / whole if whole else 0.0
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
