"""Look ahead by the last change of the updates."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    Count,
    PerParam,
    ScalarOrSchedule,
    map_leaves,
    safe_increment,
    transformation,
    value_at,
    zero_count,
    zeros_like,
)


class ScaleByOptimisticGradientState(NamedTuple):
    """The state of `scale_by_optimistic_gradient`: updates made, and the last one."""

    count: Count
    previous_gradient: PerParam


@transformation
def scale_by_optimistic_gradient(
    alpha: ScalarOrSchedule = 1.0, beta: ScalarOrSchedule = 1.0
):
    """Look ahead by the last change of the updates.

    `u ← (alpha + beta)·g − beta·g_before`; at first `g_before` is `g`

    Args:
      alpha: weight of the update; a number, or a schedule of the updates made.
      beta: weight of its last change; likewise.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_optimistic_gradient()
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update({"w": jnp.full(1, g)}, state)
      >>> updates["w"].tolist()
      [5.0]

    Source: Mokhtari, Ozdaglar & Pattathil 2019, arXiv:1901.08511, equation 11
    (generalised OGDA).
    """

    def init(params):
        return ScaleByOptimisticGradientState(zero_count(), zeros_like(params))

    def update(updates, state, params=None, **extra):
        def leaf(g, before, *, alpha, beta, first):  # g, before: one leaf, same shape
            before = jnp.where(first > 0, g, before)
            return (alpha + beta) * g - beta * before, g

        a, b = (value_at(x, state.count) if callable(x) else x for x in (alpha, beta))
        updates, previous = map_leaves(
            leaf,
            updates,
            state.previous_gradient,
            outputs=2,
            alpha=a,
            beta=b,
            first=state.count == 0,
        )
        count = safe_increment(state.count)
        return updates, ScaleByOptimisticGradientState(count, previous)

    return init, update
