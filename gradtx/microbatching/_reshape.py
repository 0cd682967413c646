"""Split the batch axis in two and join it again, so that no device sends its rows."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core import ShapeError, check_count, path_of


def reshape_batch_axis(tree: Any, microbatch_size: int, axis: int = 0) -> Any:
    """Split the batch axis of every leaf into microbatches and rows.

    `x[…, b, …] → x[…, b mod n, b div n, …]` with n microbatches

    The microbatches are strided: every n-th row belongs to the same one. A batch that
    is sharded over devices is then sharded along the rows of each microbatch, and
    each device works on its own rows in all of them.

    Args:
      tree: a pytree of arrays, each with the batch along `axis`.
      microbatch_size: rows of a microbatch; must divide the batch.
      axis: the batch axis, which becomes `axis` for the number of the microbatch and
        `axis + 1` for the row in it. Negative values count from the end.

    Raises:
      ArgumentError: if `microbatch_size` is no integer of 1 or more.
      ShapeError: if it does not divide the batch, or its part on one device.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.reshape_batch_axis(jnp.arange(6), microbatch_size=2).tolist()
      [[0, 3], [1, 4], [2, 5]]
    """
    check_count(1, microbatch_size=microbatch_size)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: _split(x, microbatch_size, axis, path_of(path)), tree
    )


def _split(x: Any, size: int, axis: int, path: str) -> jax.Array:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"leaf{path} of shape {x.shape} has no axis {axis}.")
    axis %= x.ndim
    batch = x.shape[axis]
    if batch % size:
        raise ShapeError(
            f"leaf{path}: the batch, of size {batch} along axis {axis}, must be "
            f"divisible by microbatch_size={size}."
        )
    shape = (*x.shape[:axis], size, batch // size, *x.shape[axis + 1 :])
    spec = _explicit_spec(x)
    if spec is None:
        return x.reshape(shape).swapaxes(axis, axis + 1)
    mesh = jax.typeof(x).sharding.mesh
    pieces = batch // NamedSharding(mesh, spec).shard_shape(x.shape)[axis]
    if size % pieces:
        raise ShapeError(
            f"leaf{path}: microbatch_size={size} must be divisible by the {pieces} "
            "devices over which the batch is sharded."
        )
    split = PartitionSpec(*spec[: axis + 1], None, *spec[axis + 1 :])
    return x.reshape(shape, out_sharding=NamedSharding(mesh, split)).swapaxes(
        axis, axis + 1
    )


def joined(x: jax.Array) -> jax.Array:
    """Join axes 0 and 1, microbatch and row, in the order of the batch."""
    if x.ndim < 2:
        return x
    x = x.swapaxes(0, 1)
    shape = (x.shape[0] * x.shape[1], *x.shape[2:])
    spec = _explicit_spec(x)
    if spec is None:
        return x.reshape(shape)
    # the number of the microbatch is never sharded
    merged = PartitionSpec(spec[0], *spec[2:])
    mesh = jax.typeof(x).sharding.mesh
    return x.reshape(shape, out_sharding=NamedSharding(mesh, merged))


def _explicit_spec(x: Any) -> PartitionSpec | None:
    """Return how `x` is sharded along each axis, where its type says so."""
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.are_all_axes_explicit:
        return None
    spec = tuple(sharding.spec)
    return PartitionSpec(*spec, *[None] * (x.ndim - len(spec)))
