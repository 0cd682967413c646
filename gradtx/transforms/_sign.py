"""Replace updates by their sign."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import init_empty_state, map_leaves, transformation


@transformation(scale_free=True)
def scale_by_sign():
    """Replace updates by their sign: −1, 0 or 1, or a complex number of modulus 1.

    `u ← sign(g)`

    Source: Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1.
    """

    def update(updates, state, params=None, **extra):
        return map_leaves(jnp.sign, updates), state

    return init_empty_state, update
