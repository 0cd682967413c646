"""Clip the gradient of each example before they are summed."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric, ShapeError, scaled_norm, shape_of, working


def per_example_global_norm_clip(
    grads: Any, l2_norm_clip: Numeric
) -> tuple[Any, jax.Array]:
    """Shrink each example's gradient to a global norm, and sum them.

    `Σ_i g_i·min(1, l2_norm_clip/‖g_i‖)`

    Args:
      grads: a pytree of arrays of shape `(batch, *shape)`.
      l2_norm_clip: the largest norm of one example.

    Returns:
      The sum, a pytree of arrays of shape `(*shape,)` in float32 or wider, and how many
      examples were shrunk.

    Raises:
      ShapeError: if the leaves do not share a leading axis.

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
    """
    _check_batch(grads, "per_example_global_norm_clip")
    grads = jax.tree.map(_inexact, grads)

    def one(example: Any) -> tuple[Any, jax.Array]:
        root, scale = scaled_norm(example)
        limit = jnp.asarray(l2_norm_clip).astype(root.dtype)
        over = root / scale > limit
        first = jnp.where(over, scale, 1)
        second = jnp.where(over, limit / jnp.where(root > 0, root, 1), 1)

        def leaf(x):
            x = working(x)
            return x * first.astype(x.dtype) * second.astype(x.dtype)

        return jax.tree.map(leaf, example), over

    shrunk, over = jax.vmap(one)(grads)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), shrunk), jnp.sum(over)


def per_example_layer_norm_clip(
    grads: Any, global_l2_norm_clip: Numeric, uniform: bool = True
) -> tuple[Any, Any]:
    """Shrink each example's gradient leaf by leaf, and sum them.

    The bounds of the leaves are such that a whole example keeps the global one: equal,
    or in proportion to the root of the leaf's size.

    Args:
      grads: a pytree of arrays of shape `(batch, *shape)`.
      global_l2_norm_clip: the largest norm of one example.
      uniform: whether all leaves have one bound.

    Returns:
      The sum, and for each leaf how many examples were shrunk.

    Raises:
      ShapeError: if the leaves do not share a leading axis.

    Source: McMahan et al. 2018, arXiv:1710.06963, section 3.2 (per-layer clipping).
    """
    _check_batch(grads, "per_example_layer_norm_clip")
    leaves, structure = jax.tree.flatten(grads)
    sizes = [1.0 if uniform else math.prod(shape_of(x)[1:]) for x in leaves]
    pairs = [
        per_example_global_norm_clip(x, global_l2_norm_clip * (n / sum(sizes)) ** 0.5)
        for x, n in zip(leaves, sizes, strict=True)
    ]
    sums, counts = zip(*pairs, strict=True) if pairs else ((), ())
    return structure.unflatten(sums), structure.unflatten(counts)


def _inexact(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def _check_batch(grads: Any, name: str) -> None:
    lengths = {shape_of(x)[:1] for x in jax.tree.leaves(grads)}
    if len(lengths) > 1 or () in lengths:
        raise ShapeError(
            "every leaf must have the examples on axis 0, got shapes "
            f"{[shape_of(x) for x in jax.tree.leaves(grads)]}.",
            name,
        )
