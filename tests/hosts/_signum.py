"""A transformation as a user of the library writes it, in a module of the user's."""

from typing import NamedTuple

import jax.numpy as jnp

import gradtx


class ScaleBySignumState(NamedTuple):
    """The state of `scale_by_signum`."""

    mu: gradtx.PerParam


@gradtx.transformation
def scale_by_signum(momentum: float = 0.9):
    """Replace updates by the sign of their momentum."""

    def init(params):
        return ScaleBySignumState(mu=gradtx.tree.zeros_like(params))

    def update(updates, state, params=None, **extra):
        def leaf(g, mu):  # g, mu: one leaf, same shape
            mu = momentum * mu + g
            return jnp.sign(mu), mu

        updates, mu = gradtx.map_leaves(leaf, updates, state.mu, outputs=2)
        return updates, ScaleBySignumState(mu)

    return init, update


@gradtx.transformation
def signum(learning_rate: gradtx.ScalarOrSchedule, momentum: float = 0.9):
    """Descend by the sign of the momentum: `scale_by_signum`, then the rate."""
    return gradtx.chain(
        scale_by_signum(momentum), gradtx.scale_by_learning_rate(learning_rate)
    )
