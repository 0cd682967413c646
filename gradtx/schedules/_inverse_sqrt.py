"""Fall with the root of the number of steps, without an end."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Numeric,
    check_positive,
    scalar_dtype,
    schedule,
)
from gradtx.schedules._steps import as_scalar, check_steps
from gradtx.schedules._warmup import after_warmup


@schedule
def inverse_sqrt_schedule(
    peak_value: Numeric,
    warmup_steps: int,
    init_value: Numeric = 0.0,
    *,
    timescale: Numeric | None = None,
):
    """Rise along a line, then fall with the inverse root of the number of steps.

    `linear_schedule(init, peak, warmup_steps)`, then
    `peak/√(1 + (t − warmup_steps)/timescale)`, which is `peak·√(warmup_steps/t)` where
    both numbers are equal

    Args:
      peak_value: the value at step `warmup_steps`.
      warmup_steps: length of the rise in updates, 0 or more.
      init_value: the value at step 0.
      timescale: how slow the fall is: the steps after the warm-up in which the value
        falls to `peak/√2`, above 0. By default `warmup_steps`.

    Raises:
      ArgumentError: if an argument is out of its range, or `timescale` is left out
        where `warmup_steps` is 0.

    Example:
      >>> import gradtx
      >>> rate = gradtx.schedules.inverse_sqrt_schedule(1.0, warmup_steps=4)
      >>> [float(rate(t)) for t in (0, 2, 4, 16, 64)]
      [0.0, 0.5, 1.0, 0.5, 0.25]

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.3, equation 3, with
    `peak = d_model^−0.5·warmup_steps^−0.5`; Raffel et al. 2019, arXiv:1910.10683,
    section 3.1.2, with `init = peak = 0.01` and 10⁴ steps.

    Differs from Vaswani et al.: steps are counted from 0, so the first is at `init`.
    """
    check_steps(warmup_steps=warmup_steps)
    if timescale is None and warmup_steps <= 0:
        raise ArgumentError(
            f"timescale is warmup_steps by default, which is {warmup_steps!r}. "
            "Without a warm-up, give timescale."
        )
    scale = warmup_steps if timescale is None else timescale
    check_positive(timescale=scale)

    def fall(step):
        share = step.astype(scalar_dtype()) / as_scalar(scale)
        return as_scalar(peak_value) / jnp.sqrt(1 + share)

    return after_warmup(init_value, peak_value, warmup_steps, fall)
