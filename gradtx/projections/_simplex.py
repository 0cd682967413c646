"""Project a whole tree, as one vector, on the simplex and what is made of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gradtx.core import Numeric
from gradtx.tree import mul, norm


def projection_simplex(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree whose elements are not negative and sum to `scale`.

    `max(x − tau, 0)`, with the `tau` for which the sum is right

    All leaves together are one vector.

    Args:
      tree: a pytree of floating arrays.
      scale: the sum, above 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projection_simplex(jnp.array([2.0, 1.5, -1.0])).tolist()
      [0.75, 0.25, 0.0]

    Source: Held, Wolfe & Crowder 1974, "Validation of subgradient optimization"; Duchi
    et al. 2008, "Efficient Projections onto the l1-Ball", Figure 1.
    """
    values, unravel = ravel_pytree(tree)
    scale = jnp.asarray(scale).astype(values.dtype)
    return unravel(scale * _unit_simplex(values / scale))


@jax.custom_jvp
def _unit_simplex(values: jax.Array) -> jax.Array:
    falling = -jnp.sort(-values)
    over = jnp.cumsum(falling) - 1
    places = jnp.arange(1, values.size + 1).astype(values.dtype)
    count = jnp.count_nonzero(falling * places > over)  # of the elements that stay
    tau = over[count - 1] / places[count - 1]
    return jnp.maximum(values - tau, 0)


@_unit_simplex.defjvp
def _unit_simplex_jvp(primals: Any, tangents: Any) -> Any:
    (values,), (moved,) = primals, tangents
    out = _unit_simplex(values)
    stays = (out > 0).astype(moved.dtype)
    return out, stays * (moved - jnp.sum(stays * moved) / jnp.sum(stays))


def projection_l1_sphere(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree whose magnitudes sum to `scale`.

    `sign(x)·projection_simplex(|x|)`; an element of 0 stays 0

    Args:
      tree: a pytree of floating arrays; all leaves together are one vector.
      scale: the sum, above 0.

    Source: Duchi et al. 2008, "Efficient Projections onto the l1-Ball", section 4.
    """
    sizes = projection_simplex(jax.tree.map(jnp.abs, tree), scale)
    return mul(jax.tree.map(jnp.sign, tree), sizes)


def projection_l1_ball(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree whose magnitudes sum to at most `scale`.

    Args:
      tree: a pytree of floating arrays; all leaves together are one vector.
      scale: the largest sum, above 0.

    Source: Duchi et al. 2008, "Efficient Projections onto the l1-Ball", section 4.
    """
    size = norm(tree, ord=1)
    inside = size <= jnp.asarray(scale).astype(size.dtype)
    return jax.lax.cond(
        inside, lambda x: x, lambda x: projection_l1_sphere(x, scale), tree
    )
