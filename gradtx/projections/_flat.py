"""Project a whole tree, as one vector, on spheres, balls, lines and planes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric, scaled_norm
from gradtx.tree import vdot


def projection_l2_sphere(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree of norm `scale`: `x·scale/‖x‖`.

    Args:
      tree: a pytree of arrays; all leaves together are one vector.
      scale: the norm.

    Source: Boyd & Vandenberghe 2004, "Convex Optimization", section 8.1.

    Differs from optax: of zeros, from which all points are equally far, it returns
    zeros, where there is NaN.
    """
    root, factor = scaled_norm(tree)
    zero = root == 0
    root = jnp.where(zero, 1, root)
    return _times(tree, factor, jnp.asarray(scale).astype(root.dtype) / root)


def projection_l2_ball(tree: Any, scale: Numeric = 1) -> Any:
    """Return the nearest tree of norm at most `scale`: `x·scale/max(‖x‖, scale)`.

    Args:
      tree: a pytree of arrays; all leaves together are one vector.
      scale: the largest norm, above 0.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.5.1.
    """
    root, factor = scaled_norm(tree)
    radius = jnp.asarray(scale).astype(root.dtype)
    outside = root / factor > radius
    first = jnp.where(outside, factor, 1)
    return _times(
        tree, first, jnp.where(outside, radius / jnp.where(outside, root, 1), 1)
    )


def projection_vector(x: Any, a: Any) -> Any:
    """Return the nearest multiple of a vector: `a·⟨x, a⟩/⟨a, a⟩`.

    Args:
      x: a pytree of arrays; all leaves together are one vector.
      a: another one of the same structure, not zero.

    Source: Boyd & Vandenberghe 2004, "Convex Optimization", section 8.1.
    """
    return _times(a, vdot(x, a) / vdot(a, a))


def projection_hyperplane(x: Any, a: Any, b: Numeric) -> Any:
    """Return the nearest tree with `⟨a, x⟩ = b`: `x + a·(b − ⟨x, a⟩)/⟨a, a⟩`.

    Args:
      x: a pytree of arrays; all leaves together are one vector.
      a: another one of the same structure, not zero.
      b: a number.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.2.1.
    """
    return _moved(x, a, _gap(x, a, b))


def projection_halfspace(x: Any, a: Any, b: Numeric) -> Any:
    """Return the nearest tree with `⟨a, x⟩ ≤ b`: `x + a·min(b − ⟨x, a⟩, 0)/⟨a, a⟩`.

    Args:
      x, a, b: as in `projection_hyperplane`.

    Source: Parikh & Boyd 2014, "Proximal Algorithms", section 6.2.3.
    """
    return _moved(x, a, jnp.minimum(_gap(x, a, b), 0))


def _gap(x: Any, a: Any, b: Numeric) -> jax.Array:
    along = vdot(x, a)
    return (jnp.asarray(b).astype(along.dtype) - along) / vdot(a, a)


def _moved(x: Any, a: Any, step: jax.Array) -> Any:
    def leaf(p, d):
        p = jnp.asarray(p)
        return p + step.astype(p.dtype) * d

    return jax.tree.map(leaf, x, a)


def _times(tree: Any, *factors: jax.Array) -> Any:
    def leaf(x):
        x = jnp.asarray(x)
        for factor in factors:
            x = x * factor.astype(x.dtype)
        return x

    return jax.tree.map(leaf, tree)
