"""Keep running moments of a tree of gradients, for optimizers written by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    Numeric,
    bias_correction as correction_of,
    capped_abs_sq,
    map_leaves,
)

Tree = Any


def update_moment(updates: Tree, moments: Tree, decay: Numeric, order: Numeric) -> Tree:
    """Move running means of powers one step on: `m ← (1 − decay)·g^order + decay·m`.

    The means keep their dtype, and are computed in float32 or wider.

    Args:
      updates: a pytree of gradients; `None` leaves pass.
      moments: a pytree of the same structure and shapes.
      decay: the share of the mean that one step keeps, in [0, 1].
      order: the power.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> g, m = {"w": jnp.array([4.0])}, {"w": jnp.array([2.0])}
      >>> gradtx.tree.update_moment(g, m, 0.5, 2)["w"].tolist()
      [9.0]
    """
    return _mean(updates, moments, decay, lambda g: g**order)


def update_moment_per_elem_norm(
    updates: Tree, moments: Tree, decay: Numeric, order: Numeric
) -> Tree:
    """Move running means of powers of magnitudes on, real for complex leaves too.

    `m ← (1 − decay)·|g|^order + decay·m`; for real leaves `g^order`

    Args:
      updates, moments, decay, order: as in `update_moment`.
    """

    def power(g):
        if not jnp.iscomplexobj(g):
            return capped_abs_sq(g) if order == 2 else g**order
        half = order / 2
        return capped_abs_sq(g) ** (int(half) if half == int(half) else half)

    return _mean(updates, moments, decay, power)


def update_infinity_moment(
    updates: Tree, moments: Tree, decay: Numeric, eps: Numeric
) -> Tree:
    """Move running maxima one step on: `m ← max(|g| + eps, decay·m)`.

    Args:
      updates, moments, decay: as in `update_moment`.
      eps: added to the magnitude of the gradient.
    """

    def leaf(m, g, *, decay, eps):
        return jnp.maximum(jnp.abs(g) + eps, decay * m)

    return map_leaves(leaf, _there(updates, moments), updates, decay=decay, eps=eps)


def bias_correction(moment: Tree, decay: Numeric, count: Numeric) -> Tree:
    """Divide running means by the weight that they have seen: `m/(1 − decay^count)`.

    Args:
      moment: a pytree of running means that started at 0.
      decay: the share of the mean that one step keeps, in [0, 1).
      count: how many steps the mean has seen, at least 1.
    """

    def leaf(m, *, c):
        return m / c

    return map_leaves(leaf, moment, c=correction_of(decay, count))


def _mean(updates: Tree, moments: Tree, decay: Numeric, power: Any) -> Tree:
    def leaf(m, g, *, decay):
        return (1 - decay) * power(g) + decay * m

    return map_leaves(leaf, _there(updates, moments), updates, decay=decay)


def _there(updates: Tree, moments: Tree) -> Tree:
    """Return the moments of which there is an update."""
    return jax.tree.map(
        lambda g, m: None if g is None else m,
        updates,
        moments,
        is_leaf=lambda x: x is None,
    )
