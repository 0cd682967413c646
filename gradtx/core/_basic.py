"""Make the smallest transformations: nothing, zero, and a plain function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._call import dtype_of
from gradtx.core._roles import EmptyState
from gradtx.core._transformation import as_transformation, transformation
from gradtx.core._types import Link


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


@transformation(pure=True)
def compiled(inner: Link):
    """Compile `inner` where it is called outside `jit`.

    What gradtx defines is compiled there anyway, once for each structure and type of
    its arguments, unless a function of yours is among its own: a schedule, a mask or a
    link. gradtx cannot know whether that function always returns the same for the same
    arguments. This says so; a print in it then shows tracers, and only once. Under
    `jax.disable_jit` nothing is compiled.

    Args:
      inner: what to compile; its state is that of the result.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.compiled(gradtx.sgd(lambda step: 1 / (1 + step)))
      >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)))[0].tolist()
      [-1.0]

    Source: `jax.jit`, as a wrapper.
    """
    return as_transformation(inner)


@transformation(shaped=True)
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


@transformation(shaped=True)
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
