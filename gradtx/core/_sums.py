"""Sum over all leaves of trees, and keep the sums where they fit the leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._collectives import (
    all_sum,
    axes_of,
    check_axes,
    retyped,
    varies_over,
    varying_axes,
)
from gradtx.core._numerics import bits, working
from gradtx.core._tree import check_shapes, check_structure
from gradtx.core._types import AxisName, Numeric


def sum_leaves(
    leaf: Callable[..., jax.Array],
    tree: Any,
    *trees: Any,
    axis_name: AxisName | None = None,
) -> jax.Array:
    """Sum the elements of `leaf(x, …)` over all leaves, such as an inner product.

    `Σ_leaves Σ_i real(leaf(x, y, …))_i`, in float32, or float64 if a leaf has 64 bits

    Args:
      leaf: a function of one leaf of each tree, in 32 bits or more.
      tree: the updates, or a tree like them. Its integer leaves count nothing.
      *trees: trees of the same structure.
      axis_name: mapped axes over which the leaves are sharded.

    Returns:
      A scalar; 0 where no leaf is inexact.

    Raises:
      AxisNameError: if an axis is not mapped here.
      TreeMismatchError: if the structures differ.
      ShapeError: if the shapes of two leaves differ.
    """
    check_axes(axis_name)
    for other in trees:
        check_structure(other, tree, "state", "updates")
        check_shapes(other, tree, "updates")
    parts = []
    for row in zip(*map(jax.tree.leaves, (tree, *trees)), strict=True):
        if bits(row[0]):
            precise = any(bits(x) == 64 for x in row)
            inputs = [working(x, precise) for x in row]
            mixed = any(jnp.iscomplexobj(x) for x in inputs)
            with jax.numpy_dtype_promotion("standard") if mixed else nullcontext():
                parts.append(jnp.sum(jnp.real(leaf(*inputs))))
    return add_up(parts, axis_name) if parts else jnp.zeros(())


def add_up(parts: list[jax.Array], axis_name: AxisName | None = None) -> jax.Array:
    """Add scalars of several leaves, each also over the axes on which it varies.

    Args:
      parts: at least one scalar; the sum has the widest dtype among them.
      axis_name: mapped axes over which leaves are sharded.
    """
    dtype = max((x.dtype for x in parts), key=lambda dtype: dtype.itemsize)
    by_axes: dict[tuple[str, ...], list[jax.Array]] = {}
    for x in parts:
        # one scalar per leaf; leaves that vary over the same axes are added first
        by_axes.setdefault(varying_axes(x, axis_name), []).append(x.astype(dtype))
    sums = [all_sum(jnp.sum(jnp.stack(p)), axes) for axes, p in by_axes.items()]
    return jnp.sum(jnp.stack(sums))


def scalar_like(
    params: Any, value: Numeric = 0.0, *, axis_name: AxisName | None = None
) -> jax.Array:
    """Return a scalar of the type that a sum over leaves like `params` will have.

    float32, or float64 if a leaf has 64 bits. In a `shard_map` that knows what varies
    between devices, the sum of what varies varies too, but for the axes over which it
    is summed.

    Args:
      params: a pytree of parameters.
      value: its value, a number or a scalar array.
      axis_name: as in `sum_leaves`.
    """
    wide = any(bits(x) == 64 for x in jax.tree.leaves(params))
    dtype = jnp.float64 if wide else jnp.float32
    return varying_sum(jnp.array(value, dtype, copy=True), params, axis_name)


def varying_sum(x: jax.Array, params: Any, axis_name: AxisName | None) -> jax.Array:
    """Return `x`, typed as varying where a sum over leaves like `params` varies."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x
    axes = frozenset().union(*map(varies_over, jax.tree.leaves(params)))
    return retyped(x, axes - set(axes_of(axis_name)))
