"""Say which axes of an array are the rows and columns of a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import ArgumentError, ShapeError


class MuonDimensionNumbers(NamedTuple):
    """Which axes of an array make up a matrix `(in, out)`; the others count matrices.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> heads = gradtx.MuonDimensionNumbers(0, (1, 2))  # (embed, heads, head_dim)
      >>> heads.fold(jnp.ones((8, 2, 3))).shape
      (1, 8, 6)

    Attributes:
      reduction_axis: the axis or axes over which `x @ W` sums.
      output_axis: the axis or axes of its result.
    """

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1

    def axes(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the axes that count matrices, those of the rows, of the columns.

        Raises:
          ShapeError: if an array of this shape has fewer than two axes, or not these.
          ArgumentError: if an axis is named twice.
        """
        ndim = len(shape)
        given = [
            (a,) if isinstance(a, int) else tuple(a)
            for a in (self.reduction_axis, self.output_axis)
        ]
        if ndim < 2 or not all(-ndim <= a < ndim for axes in given for a in axes):
            raise ShapeError(
                f"an array of shape {shape} has no matrix with rows {given[0]} and "
                f"columns {given[1]}. Leave it to another optimizer."
            )
        rows, columns = (tuple(a % ndim for a in axes) for axes in given)
        if len({*rows, *columns}) < len(rows) + len(columns):
            raise ArgumentError(
                f"rows {given[0]} and columns {given[1]} share an axis of shape {shape}."
            )
        batch = tuple(a for a in range(ndim) if a not in (*rows, *columns))
        return batch, rows, columns

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return how many matrices an array of `shape` holds, their rows and columns."""
        batch, rows, columns = self.axes(shape)
        of = lambda axes: math.prod(shape[a] for a in axes)
        return of(batch), of(rows), of(columns)

    def fold(self, x: Any) -> jax.Array:
        """Return the matrices of `x`, of shape `(batch, in, out)`."""
        order = sum(self.axes(x.shape), ())
        return jnp.transpose(x, order).reshape(self.sizes(x.shape))

    def unfold(self, matrices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the array of `shape` whose `fold` is `matrices`."""
        order = sum(self.axes(shape), ())
        x = matrices.reshape(tuple(shape[a] for a in order))
        return jnp.transpose(x, tuple(order.index(a) for a in range(len(shape))))
