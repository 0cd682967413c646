"""Rise, stay, fall: the trapezoid of long language-model runs."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Numeric,
    check_non_negative,
    check_positive,
    schedule,
)
from gradtx.schedules._cosine import half_cosine
from gradtx.schedules._linear import straight
from gradtx.schedules._steps import check_steps, share, transition
from gradtx.schedules._warmup import after_warmup

SHAPES = {
    "linear": straight,
    "cosine": half_cosine,
    "1-sqrt": lambda n, T: 1 - jnp.sqrt(share(n, T)),
}


@schedule
def warmup_stable_decay_schedule(
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    end_value: Numeric = 0.0,
    *,
    decay_shape: Literal["linear", "cosine", "1-sqrt"] = "linear",
):
    """Rise along a line, stay at the peak, then fall: WSD, or the trapezoid.

    `linear_schedule(init, peak, warmup_steps)`, then `peak` for `stable_steps`, then
    `(peak − end)·f(n/T) + end`, with `n` the steps of the fall, `T = decay_steps` and
    `f(x) = 1 − x`, `½·(1 + cos(π·x))` or `1 − √x`

    Args:
      init_value: the value at step 0.
      peak_value: the value from step `warmup_steps` until the fall.
      warmup_steps: length of the rise in updates, 0 or more.
      stable_steps: length of the plateau in updates, 0 or more.
      decay_steps: length of the fall in updates, above 0; the three lengths add up to
        the whole schedule.
      end_value: the value from the end of the fall on.
      decay_shape: the curve of the fall, "linear", "cosine" or "1-sqrt".

    Raises:
      ArgumentError: if an argument is out of its range.

    Example:
      >>> import gradtx
      >>> wsd = gradtx.schedules.warmup_stable_decay_schedule
      >>> rate = wsd(0.0, 1.0, 2, 10, 4, decay_shape="1-sqrt")
      >>> [float(rate(t)) for t in (0, 1, 2, 12, 13, 16)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]

    Source: Hu et al. 2024, arXiv:2404.06395, section 4.2 (WSD); Hägele et al. 2024,
    arXiv:2405.18392, section 3 (the linear and the 1-sqrt fall).
    """
    if decay_shape not in SHAPES:
        raise ArgumentError(
            f"decay_shape must be one of {', '.join(map(repr, SHAPES))}, got "
            f"{decay_shape!r}."
        )
    check_steps(stable_steps=stable_steps, decay_steps=decay_steps)
    check_non_negative(stable_steps=stable_steps)
    check_positive(
        "For no decay, use warmup_constant_schedule.", decay_steps=decay_steps
    )
    fall = transition(
        SHAPES[decay_shape], peak_value, end_value, decay_steps, begin=stable_steps
    )
    return after_warmup(init_value, peak_value, warmup_steps, fall)
