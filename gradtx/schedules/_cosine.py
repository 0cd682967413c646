"""Fall along the first half of a cosine."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core import Numeric, check_non_negative, check_positive, schedule
from gradtx.schedules._steps import as_scalar, check_steps, transition


def half_cosine(n: jax.Array, T: float) -> jax.Array:
    """Return `½·(1 + cos(π·n/T))`: 1 at n = 0, 0 at n = T."""
    return 0.5 * (1 + jnp.cos(jnp.pi * n / T))


@schedule
def cosine_decay_schedule(
    init_value: Numeric,
    decay_steps: int,
    alpha: Numeric = 0.0,
    exponent: Numeric = 1.0,
):
    """Fall from `init_value` to a share of it along half a cosine.

    `value(t) = init·((1 − alpha)·(½·(1 + cos(π·n/T)))^exponent + alpha)`, with
    `n = min(t, T)` and `T = decay_steps`

    Args:
      init_value: the value at step 0.
      decay_steps: length of the decay in updates, above 0.
      alpha: the value from step `decay_steps` on, as a share of `init_value`.
      exponent: the power of the cosine, 0 or more.

    Raises:
      ArgumentError: if `decay_steps` is not a plain number above 0, or `exponent` is
        negative.

    Example:
      >>> import gradtx
      >>> fall = gradtx.schedules.cosine_decay_schedule(2.0, decay_steps=10, alpha=0.5)
      >>> [float(fall(t)) for t in (0, 5, 10, 11)]
      [2.0, 1.5, 1.0, 1.0]

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983, equation 5, without restarts.
    """
    check_steps(decay_steps=decay_steps)
    check_positive("For no decay, use constant_schedule.", decay_steps=decay_steps)
    check_non_negative(exponent=exponent)

    def curve(n: jax.Array, T: float) -> jax.Array:
        return half_cosine(n, T) ** as_scalar(exponent)

    share = transition(curve, 1.0, alpha, decay_steps)
    return lambda step: as_scalar(init_value) * share(step)
