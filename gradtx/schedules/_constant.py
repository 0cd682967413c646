"""Stay at one value."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import Numeric, scalar_dtype, schedule
from gradtx.schedules._steps import as_scalar


@schedule
def constant_schedule(value: Numeric):
    """Return the same value at every step.

    `value(t) = value`

    Args:
      value: the value.

    Example:
      >>> import gradtx
      >>> float(gradtx.schedules.constant_schedule(0.5)(1000))
      0.5

    Source: the default of every optimizer.
    """
    return lambda step: jnp.full(step.shape, as_scalar(value), scalar_dtype())
