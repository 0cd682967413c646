"""Keep parameters at 0 or above."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    EmptyState,
    init_empty_state,
    map_leaves,
    transformation,
)

NonNegativeParamsState = EmptyState


@transformation(needs={"params"})
def keep_params_nonnegative():
    """Change updates so that no parameter falls below 0; put it last.

    `u ← −p` where `p + g < 0`, else `g`

    Raises:
      MissingArgumentError: if `update` gets no parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.keep_params_nonnegative()
      >>> g, p = {"w": jnp.array([-2.0, -2.0])}, {"w": jnp.array([1.0, 3.0])}
      >>> tx.update(g, tx.init(p), p)[0]["w"].tolist()
      [-1.0, -2.0]

    Source: the projection onto the non-negative orthant, as a link.
    """

    def update(updates, state, params=None, **extra):
        def leaf(g, p):  # g, p: one leaf, same shape
            return jnp.where(p + g < 0, -p, g)

        return map_leaves(leaf, updates, params), state

    return init_empty_state, update
