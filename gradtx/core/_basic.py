"""Make the smallest transformations: nothing, zero, and a plain function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._call import dtype_of
from gradtx.core._roles import EmptyState
from gradtx.core._transformation import transformation


def init_empty_state(params: Any) -> EmptyState:
    """Return the state of a transformation that keeps nothing."""
    del params
    return EmptyState()


@transformation(pure=False)  # there is nothing to compile
def identity():
    """Leave updates as they are.

    `u ← g`

    Example:
      >>> import gradtx
      >>> gradtx.chain(gradtx.identity(), gradtx.scale(2.0))
      chain(identity(), scale(2.0))

    Source: the neutral element of `chain`.
    """

    def update(updates, state, params=None, **extra):
        return updates, state

    return init_empty_state, update


@transformation
def set_to_zero():
    """Replace updates by zeros, NaN and infinity included.

    `u ← 0`

    Source: torch's `requires_grad=False`, as a link.
    """

    def update(updates, state, params=None, **extra):
        def leaf(g):
            return g if dtype_of(g) == jax.dtypes.float0 else jnp.zeros_like(g)

        return jax.tree.map(leaf, updates), state

    return init_empty_state, update


@transformation
def stateless(f: Callable[[Any, Any], Any]):
    """Apply a function of updates and parameters that keeps no state.

    `u ← f(g, params)`

    Args:
      f: `(updates, params) -> updates` on whole trees. `params` is `None` where
        `update` got none.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.stateless(lambda g, p: jax.tree.map(jnp.sign, g))
      >>> tx.update({"w": jnp.array([-3.0, 2.0])}, tx.init(None))[0]["w"].tolist()
      [-1.0, 1.0]

    Source: a lift of plain functions to transformations.
    """

    def update(updates, state, params=None, **extra):
        return f(updates, params), state

    return init_empty_state, update


@transformation
def stateless_with_tree_map(f: Callable[[Any, Any], Any]):
    """Apply a function of one update and its parameter to every leaf.

    `u ← f(g, p)` for each leaf

    Args:
      f: `(g, p) -> u` on one leaf. `p` is `None` where `update` got no parameters.

    Source: a lift of plain functions to transformations.
    """

    def update(updates, state, params=None, **extra):
        if params is None:
            return jax.tree.map(lambda g: f(g, None), updates), state
        return jax.tree.map(f, updates, params), state

    return init_empty_state, update
