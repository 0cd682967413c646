"""Move from one value to another along a polynomial, or a straight line."""

from __future__ import annotations

import jax

from gradtx.core import Numeric, check_non_negative, schedule
from gradtx.schedules._constant import constant_schedule
from gradtx.schedules._steps import as_scalar, check_steps, share, transition


def straight(n: jax.Array, T: float) -> jax.Array:
    """Return `1 − n/T`: 1 at n = 0, 0 at n = T."""
    return 1 - share(n, T)


@schedule
def polynomial_schedule(
    init_value: Numeric,
    end_value: Numeric,
    power: Numeric,
    transition_steps: int,
    transition_begin: int = 0,
):
    """Move from `init_value` to `end_value` along a power of the remaining share.

    `value(t) = (init − end)·(1 − n/T)^power + end`, with
    `n = min(max(t − transition_begin, 0), T)` and `T = transition_steps`

    Args:
      init_value: the value up to step `transition_begin`.
      end_value: the value from step `transition_begin + transition_steps` on.
      power: the exponent, 0 or more; 1 is a straight line.
      transition_steps: length of the transition in updates. At 0 or less the value
        stays `init_value`.
      transition_begin: the step at which the transition begins; below 0 counts as 0.

    Raises:
      ArgumentError: if a count is no plain number, or `power` is negative.

    Example:
      >>> import gradtx
      >>> curve = gradtx.schedules.polynomial_schedule(1.0, 0.0, 2, transition_steps=4)
      >>> [float(curve(t)) for t in range(5)]
      [1.0, 0.5625, 0.25, 0.0625, 0.0]

    Source: Chen et al. 2016, arXiv:1606.00915, section 4.1.2 ("poly" policy).
    """
    check_steps(transition_steps=transition_steps, transition_begin=transition_begin)
    check_non_negative(power=power)
    if transition_steps <= 0:
        return constant_schedule(init_value)

    def curve(n: jax.Array, T: float) -> jax.Array:
        return straight(n, T) ** as_scalar(power)

    begin = max(transition_begin, 0)
    return transition(curve, init_value, end_value, transition_steps, begin)


@schedule
def linear_schedule(
    init_value: Numeric,
    end_value: Numeric,
    transition_steps: int,
    transition_begin: int = 0,
):
    """Move from `init_value` to `end_value` along a straight line.

    `value(t) = (init − end)·(1 − n/T) + end`, with `n`, `T` of `polynomial_schedule`

    Args:
      init_value: the value up to step `transition_begin`.
      end_value: the value from step `transition_begin + transition_steps` on.
      transition_steps: length of the transition in updates. At 0 or less the value
        stays `init_value`.
      transition_begin: the step at which the transition begins; below 0 counts as 0.

    Raises:
      ArgumentError: if a count is no plain number.

    Example:
      >>> import gradtx
      >>> float(gradtx.schedules.linear_schedule(0.0, 1.0, transition_steps=4)(1))
      0.25

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2 (gradual warm-up).
    """
    check_steps(transition_steps=transition_steps, transition_begin=transition_begin)
    return polynomial_schedule(
        init_value, end_value, 1, transition_steps, transition_begin
    )
