"""Project each element on an interval."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric


def projection_non_negative(tree: Any) -> Any:
    """Return the nearest tree without negative elements: `max(x, 0)`.

    Args:
      tree: a pytree of arrays.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projection_non_negative(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.2.4.
    """
    return jax.tree.map(jax.nn.relu, tree)


def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """Return the nearest tree within bounds: `min(max(x, lower), upper)`.

    Args:
      tree: a pytree of arrays.
      lower, upper: a number for all elements, or a pytree of the same structure.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.2.4.
    """
    structure = jax.tree.structure(tree)

    def bound(value: Any) -> Any:
        if jax.tree.structure(value) == structure:
            return value
        return jax.tree.map(lambda x: jnp.asarray(value).astype(x.dtype), tree)

    return jax.tree.map(jnp.clip, tree, bound(lower), bound(upper))


def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """Return the nearest tree with elements from 0 to `scale`.

    Args:
      tree: a pytree of arrays.
      scale: the upper bound: a number, or a pytree of the same structure.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.2.4.
    """
    return projection_box(tree, 0, scale)


def projection_linf_ball(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree with elements from `−scale` to `scale`.

    Args:
      tree: a pytree of arrays.
      scale: the largest magnitude.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.5.3.
    """
    return projection_box(tree, -jnp.asarray(scale), scale)
