"""Repeat warm-up and cosine decay, each cycle with numbers of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gradtx.core import ArgumentError, schedule
from gradtx.schedules._join import join_schedules
from gradtx.schedules._warmup import warmup_cosine_decay_schedule


@schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]):
    """Run warm-ups with cosine decay one after the other: warm restarts.

    `warmup_cosine_decay_schedule(**cosine_kwargs[i])` for its own `decay_steps`, i = 0,
    1, …; the last one then stays at its end

    Args:
      cosine_kwargs: the arguments of each cycle, at least one.

    Raises:
      ArgumentError: if there is no cycle, or the arguments of one are not those of
        `warmup_cosine_decay_schedule` or out of their range.

    Example:
      >>> import gradtx
      >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=4)
      >>> waves = gradtx.schedules.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])
      >>> [round(float(waves(t)), 3) for t in range(9)]
      [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.0]

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983, equation 5 and section 3.

    Differs from the paper: every cycle may begin with a warm-up, as in optax.
    """
    if not cosine_kwargs:
        raise ArgumentError(
            "cosine_kwargs must hold at least one cycle, got none. Give a dict of the "
            "arguments of warmup_cosine_decay_schedule for each."
        )
    cycles = [_cycle(i, kwargs) for i, kwargs in enumerate(cosine_kwargs)]
    lengths = [kwargs["decay_steps"] for kwargs in cosine_kwargs]
    boundaries = list(itertools.accumulate(lengths[:-1]))
    return join_schedules(cycles, boundaries)


def _cycle(i: int, kwargs: Mapping[str, Any]):
    try:
        return warmup_cosine_decay_schedule(**kwargs)
    except (TypeError, ArgumentError) as error:
        raise ArgumentError(
            f"cosine_kwargs[{i}] must be the arguments of one "
            f"warmup_cosine_decay_schedule, got {kwargs!r}: {error}"
        ) from error
