"""Run schedules one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from gradtx.core import ArgumentError, Numeric, schedule, value_at
from gradtx.schedules._steps import aligned, check_steps, elapsed


@schedule
def join_schedules(
    schedules: Sequence[Callable[[Numeric], Numeric]], boundaries: Sequence[int]
):
    """Run schedules one after the other, each counted from its own beginning.

    `value(t) = schedules[i](t − boundaries[i−1])` for
    `boundaries[i−1] ≤ t < boundaries[i]`

    No schedule is asked for a step before its beginning or after its end, so what it
    would be there, infinite or NaN, does no harm, not even to derivatives.

    Args:
      schedules: functions from the step to a scalar, at least one.
      boundaries: the step at which each schedule but the first takes over. Where two
        are equal, the schedule between them has no step.

    Raises:
      ArgumentError: if a schedule is not callable, or the boundaries are not one fewer
        than the schedules, no plain numbers or not in order.

    Example:
      >>> import gradtx
      >>> warm = gradtx.schedules.linear_schedule(0.0, 1.0, transition_steps=4)
      >>> rest = gradtx.schedules.exponential_decay(1.0, 1, 0.5)
      >>> both = gradtx.schedules.join_schedules([warm, rest], [4])
      >>> [float(both(t)) for t in (3, 4, 5, 6)]
      [0.75, 1.0, 0.5, 0.25]

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2: warm-up, then the
    original schedule.
    """
    _check(schedules, boundaries)
    begins, ends = [0, *boundaries], [*boundaries, math.inf]

    def at(step):
        found = [
            value_at(piece, elapsed(step, begin, end))
            for piece, begin, end in zip(schedules, begins, ends)
        ]
        value = found[0]
        for boundary, later in zip(boundaries, found[1:]):
            now, switch = aligned(step, boundary)
            value = jnp.where(now < switch, value, later)
        return value

    return at


def _check(schedules, boundaries) -> None:
    for i, piece in enumerate(schedules):
        if not callable(piece):
            raise ArgumentError(
                f"schedules[{i}] must be a function of the step, got {piece!r}. For a "
                "constant, use constant_schedule."
            )
    if len(boundaries) != len(schedules) - 1:
        raise ArgumentError(
            f"boundaries must be one fewer than schedules, got {len(boundaries)} "
            f"boundaries for {len(schedules)} schedules. Give the step at which each "
            "schedule but the first takes over."
        )
    check_steps(**{f"boundaries[{i}]": b for i, b in enumerate(boundaries)})
    for before, after in itertools.pairwise(boundaries):
        if after < before:
            raise ArgumentError(
                f"boundaries must not decrease, got {after} after {before}. Count each "
                "from step 0, not from the boundary before."
            )
