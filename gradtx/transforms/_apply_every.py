"""Hand on the sum of updates at every k-th call."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    Count,
    PerParam,
    check_count,
    map_leaves,
    transformation,
    zero_count,
    zeros_like,
)


class ApplyEvery(NamedTuple):
    """The state of `apply_every`: calls since the last sum was handed on, and the sum."""

    count: Count
    grad_acc: PerParam


@transformation
def apply_every(k: int = 1):
    """Hand on the sum of the last `k` updates at every k-th call, else zeros.

    `acc ← acc + g`; at every k-th call `u ← acc`, `acc ← 0`, else `u ← 0`

    Links behind it run at every call. `accumulate` lets the inner transformation wait.

    Args:
      k: calls per sum, 1 or more.

    Raises:
      ArgumentError: if `k` is no integer of 1 or more.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.apply_every(2)
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update({"w": jnp.full(1, g)}, state)
      ...     print(updates["w"].tolist())
      [0.0]
      [4.0]

    Source: Ott et al. 2018, arXiv:1806.00187, section 3 (cumulative updates).
    """
    check_count(1, k=k)

    def init(params):
        return ApplyEvery(zero_count(), zeros_like(params))

    def update(updates, state, params=None, **extra):
        last = state.count >= k - 1

        def leaf(g, acc, *, last):  # g, acc: one leaf, same shape
            acc = acc + g
            # a NaN leaves with its sum, and does not stay as 0·NaN
            return jnp.where(last > 0, acc, 0), jnp.where(last > 0, 0, acc)

        updates, acc = map_leaves(leaf, updates, state.grad_acc, outputs=2, last=last)
        count = jnp.where(last, jnp.zeros_like(state.count), state.count + 1)
        return updates, ApplyEvery(count, acc)

    return init, update
