"""Stay at one value."""

from __future__ import annotations

from gradtx.core import Numeric, schedule


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
    return lambda step: value
