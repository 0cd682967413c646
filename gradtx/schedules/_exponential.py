"""Multiply a value by one factor per period, smoothly or in stairs."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import Numeric, check_non_negative, scalar_dtype, schedule
from gradtx.schedules._constant import constant_schedule
from gradtx.schedules._steps import aligned, as_scalar, check_steps, elapsed


@schedule
def exponential_decay(
    init_value: Numeric,
    transition_steps: int,
    decay_rate: Numeric,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Numeric | None = None,
):
    """Multiply `init_value` by `decay_rate` every `transition_steps`.

    `value(t) = init·decay_rate^(n/T)`, with `n = max(t − transition_begin, 0)` and
    `T = transition_steps`

    Args:
      init_value: the value up to step `transition_begin`.
      transition_steps: the period in updates. At 0 or less the value stays
        `init_value`.
      decay_rate: the factor per period, 0 or more. Above 1 the value grows; at 0 it
        stays `init_value`.
      transition_begin: the step at which the decay begins; below 0 counts as 0.
      staircase: whether `n/T` is rounded down, so that the value moves once a period.
      end_value: the bound of the value: the least for a rate below 1, the greatest
        for others. Without effect at rate 0.

    Raises:
      ArgumentError: if a count is no plain number, or `decay_rate` is negative.

    Example:
      >>> import gradtx
      >>> halve = gradtx.schedules.exponential_decay(1.0, 10, 0.5, staircase=True)
      >>> [float(halve(t)) for t in (0, 9, 10, 25)]
      [1.0, 1.0, 0.5, 0.25]

    Source: Szegedy et al. 2015, arXiv:1512.00567, section 8 (0.94 every two epochs).
    """
    check_steps(transition_steps=transition_steps, transition_begin=transition_begin)
    check_non_negative(decay_rate=decay_rate)
    if transition_steps <= 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)

    def at(step):
        n = elapsed(step, begin)
        if staircase:
            n, period = aligned(n, transition_steps)
            periods = (n // period).astype(scalar_dtype())
        else:
            periods = n.astype(scalar_dtype()) / float(transition_steps)
        rate = jnp.asarray(decay_rate, scalar_dtype())
        # a rate of 0 is replaced by 1, which keeps the value and its derivatives finite
        factor = jnp.where(rate == 0, 1, rate) ** periods
        value = as_scalar(init_value) * factor
        if end_value is None:
            return value
        end = as_scalar(end_value)
        bounded = jnp.where(rate < 1, jnp.maximum(value, end), jnp.minimum(value, end))
        return jnp.where(rate == 0, value, bounded)

    return at
