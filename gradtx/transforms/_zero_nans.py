"""Replace NaN in updates by zero."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import Factored, any_shape, map_leaves, transformation


class ZeroNansState(NamedTuple):
    """The state of `zero_nans`: for each leaf, whether the last update held NaN."""

    found_nan: Factored


@transformation
def zero_nans():
    """Replace NaN by zero, and remember in which leaves there was any.

    `u ← 0 where g is NaN, else g`

    Infinities stay: they show that something overflowed.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, g = gradtx.zero_nans(), {"w": jnp.array([1.0, jnp.nan])}
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates["w"].tolist(), bool(state.found_nan["w"])
      ([1.0, 0.0], True)

    Source: the usual guard of reinforcement learning code; see `optax.zero_nans`.
    """

    def init(params):
        return ZeroNansState(
            jax.tree.map(lambda p: jnp.zeros_like(p, bool, shape=()), params)
        )

    def update(updates, state, params=None, **extra):
        def leaf(g, found):  # g: one leaf; found: a bool
            nan = jnp.isnan(g)
            return jnp.where(nan, 0, g), jnp.any(nan)

        updates, found = map_leaves(
            leaf, updates, any_shape(state.found_nan), outputs=2
        )
        return updates, ZeroNansState(found)

    return init, update
