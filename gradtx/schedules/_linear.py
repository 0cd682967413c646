"""Move from one value to another along a polynomial, or a straight line."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import Numeric, scalar_dtype, schedule


@schedule
def polynomial_schedule(
    init_value: Numeric,
    end_value: Numeric,
    power: Numeric,
    transition_steps: int,
    transition_begin: int = 0,
):
    """Move from `init_value` to `end_value` along a power of the remaining share.

    `value(t) = end + (init − end)·(1 − n/T)^power`, with
    `n = min(max(t − transition_begin, 0), T)` and `T = transition_steps`

    Args:
      init_value: the value up to step `transition_begin`.
      end_value: the value from step `transition_begin + transition_steps` on.
      power: the exponent; 1 is a straight line.
      transition_steps: length of the transition in updates. At 0 or less the value
        stays `init_value`.
      transition_begin: the step at which the transition begins.

    Example:
      >>> import gradtx
      >>> curve = gradtx.schedules.polynomial_schedule(1.0, 0.0, 2, transition_steps=4)
      >>> [float(curve(t)) for t in range(5)]
      [1.0, 0.5625, 0.25, 0.0625, 0.0]

    Source: Chen et al. 2016, arXiv:1606.00915, section 4.1.2 ("poly" policy).
    """
    if transition_steps <= 0:
        return lambda step: init_value

    def at(step):
        done = jnp.clip(step - transition_begin, 0, transition_steps)
        left = 1 - done.astype(scalar_dtype()) / transition_steps
        return (init_value - end_value) * left**power + end_value

    return at


@schedule
def linear_schedule(
    init_value: Numeric,
    end_value: Numeric,
    transition_steps: int,
    transition_begin: int = 0,
):
    """Move from `init_value` to `end_value` along a straight line.

    `value(t) = init + (end − init)·n/T`, with `n` and `T` of `polynomial_schedule`

    Args:
      init_value: the value up to step `transition_begin`.
      end_value: the value from step `transition_begin + transition_steps` on.
      transition_steps: length of the transition in updates. At 0 or less the value
        stays `init_value`.
      transition_begin: the step at which the transition begins.

    Example:
      >>> import gradtx
      >>> float(gradtx.schedules.linear_schedule(0.0, 1.0, transition_steps=4)(1))
      0.25

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2 (gradual warm-up).
    """
    return polynomial_schedule(
        init_value, end_value, 1, transition_steps, transition_begin
    )
