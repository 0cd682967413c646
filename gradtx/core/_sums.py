"""Sum over all leaves of trees, and keep the sums where they fit the leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core._collectives import (
    all_sum,
    axes_of,
    check_axes,
    retyped,
    varies_over,
    varying_axes,
)
from gradtx.core._numerics import abs_sq, bits, working
from gradtx.core._order import after
from gradtx.core._tree import check_shapes, check_structure
from gradtx.core._types import AxisName, Numeric

_HAVE_FLOAT64 = ("cpu", "gpu")


def sum_leaves(
    leaf: Callable[..., jax.Array],
    tree: Any,
    *trees: Any,
    axis_name: AxisName | None = None,
    apart: jax.Array | None = None,
    **scalars: Any,
) -> jax.Array:
    """Sum the elements of `leaf(x, …)` over all leaves, such as an inner product.

    `Σ_leaves Σ_i real(leaf(x, y, …))_i`, in float32, or float64 if a leaf has 64 bits

    What a sum has in common with another sum or with an update, XLA keeps in memory for
    both on a CPU: a root, a quotient, even a number spread to the size of a leaf. So
    `leaf` should take its numbers as `scalars`, and `apart` make them its own.

    Args:
      leaf: a function of one leaf of each tree, in 32 bits or more.
      tree: the updates, or a tree like them. Its integer leaves count nothing.
      *trees: trees of the same structure.
      axis_name: mapped axes over which the leaves are sharded.
      apart: a scalar that only a run can tell, such as one of the state. Each leaf
        then gets scalars that look as if no other leaf had them. Where it is NaN, so
        is the sum.
      **scalars: numbers or scalar arrays that all leaves share, as in `map_leaves`.

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
            real = jnp.float64 if precise else jnp.float32
            own = dict(scalars)
            if apart is not None:
                before = parts[-1] if parts else apart
                own = {k: after(jnp.asarray(v, real), before) for k, v in own.items()}
            mixed = any(jnp.iscomplexobj(x) for x in inputs)
            with jax.numpy_dtype_promotion("standard") if mixed else nullcontext():
                parts.append(jnp.sum(jnp.real(leaf(*inputs, **own))))
    return add_up(parts, axis_name) if parts else jnp.zeros(())


def sum_of_squares(
    tree: Any, *others: Any, axis_name: AxisName | None = None
) -> jax.Array:
    """Return `‖x‖²`, or `‖x − y‖²`, and half of the largest float where it overflows.

    Where a square is what is wanted, float32 is enough: it is out of range wherever
    the sum is. A norm is another matter (`global_norm`).

    Args:
      tree: the updates, or a tree like them.
      *others: at most one tree to subtract.
      axis_name: as in `sum_leaves`.
    """

    def leaf(x, y=None):
        return abs_sq(x if y is None else x - y)

    total = sum_leaves(leaf, tree, *others, axis_name=axis_name)
    return jnp.minimum(total, jnp.finfo(total.dtype).max / 2)


def fits_float64(dtype: Any) -> bool:
    """Say whether sums over numbers of `dtype` are taken in float64.

    All squares of float32 fit into it, and so do their sums. On a CPU it takes 1.2
    times a float32 sum, which is bound by memory. TPUs emulate float64 with the range
    of float32.
    """
    return dtype == jnp.float32 and jax.default_backend() in _HAVE_FLOAT64


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
    sums = [all_sum(_added(p), axes) for axes, p in by_axes.items()]
    return jnp.sum(jnp.stack(sums))


def _added(parts: list[jax.Array]) -> jax.Array:
    # The barrier makes the scalars of all leaves one array before they are added. Else
    # XLA computes their sum anew for each of its readers: with a kernel per leaf that
    # reads the sum, programs grow with the square of the number of leaves.
    return jnp.sum(lax.optimization_barrier(jnp.stack(parts)))


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
