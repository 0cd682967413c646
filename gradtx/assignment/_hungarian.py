"""Solve the linear assignment problem by shortest augmenting paths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import ShapeError, scalar_dtype, working


def hungarian_algorithm(cost_matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return pairs of rows and columns whose costs have the smallest sum.

    Every row of a wide matrix and every column of a tall one is in exactly one pair.
    Rows are added one by one: each along the shortest path of reduced costs
    `cost[i, j] − u[i] − v[j] ≥ 0` to a free column, in O(n·m) operations.

    Args:
      cost_matrix: the costs, (n, m). Pairs of infinite or NaN cost are taken only where
        nothing else is left.

    Returns:
      Row and column indices, each of shape (min(n, m),), rows ascending.

    Raises:
      ShapeError: if `cost_matrix` is no matrix.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> cost = jnp.array([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
      >>> rows, columns = gradtx.assignment.hungarian_algorithm(cost)
      >>> rows.tolist(), columns.tolist(), int(cost[rows, columns].sum())
      ([0, 1, 3], [0, 2, 1], 15)

    Source: Crouse 2016, "On implementing 2D rectangular assignment algorithms",
    IEEE TAES 52(4), pages 1685-1686.
    """
    cost = jnp.asarray(cost_matrix)
    if cost.ndim != 2:
        raise ShapeError(
            f"hungarian_algorithm: expected costs (n, m), got shape {cost.shape}. "
            "For several matrices use jax.vmap."
        )
    if 0 in cost.shape:
        return jnp.arange(0), jnp.arange(0)
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        cost = cost.astype(scalar_dtype())
    cost = _finite(working(cost))
    if cost.shape[0] <= cost.shape[1]:
        return jnp.arange(cost.shape[0]), _columns(cost)
    rows = _columns(cost.T)
    columns = jnp.argsort(rows)
    return rows[columns], columns


#: optax's other implementation; here there is one.
base_hungarian_algorithm = hungarian_algorithm


def _finite(cost: jax.Array) -> jax.Array:
    """Replace what is not finite by a cost that no sum of the others outweighs."""
    real = jnp.isfinite(cost)
    low = jnp.min(cost, where=real, initial=jnp.inf)
    high = jnp.max(cost, where=real, initial=-jnp.inf)
    low, high = (jnp.where(jnp.isfinite(x), x, 0) for x in (low, high))
    gap = (high - low + 1) * (min(cost.shape) + 1)
    other = jnp.where(cost == -jnp.inf, low - gap, high + gap)
    return jnp.where(real, cost, other)


def _columns(cost: jax.Array) -> jax.Array:  # (n, m), n <= m -> (n,)
    """Return the column of each row."""
    n, m = cost.shape
    index = jnp.arange(0).dtype

    def add_row(row, carry):
        u, v, column_of, row_of = carry
        row = row.astype(index)
        path, shortest, done, sink, length = _search(cost, u, v, row_of, row)

        gain = jnp.where(done, length - shortest, 0)
        v = v - gain
        u = u.at[row].add(length)
        u = u.at[jnp.where(done & (row_of >= 0), row_of, n)].add(gain, mode="drop")

        def turn(state):  # give column j to the row before it on the path
            j, column_of, row_of, _ = state
            i = path[j]
            before = column_of[i]
            return before, column_of.at[i].set(j), row_of.at[j].set(i), i == row

        start = (sink, column_of, row_of, jnp.zeros((), bool))
        _, column_of, row_of, _ = lax.while_loop(lambda s: ~s[3], turn, start)
        return u, v, column_of, row_of

    nobody = jnp.full(m, -1, index)
    start = (jnp.zeros_like(cost[:, 0]), jnp.zeros_like(cost[0]), nobody[:n], nobody)
    return lax.fori_loop(0, n, add_row, start)[2]


def _search(cost, u, v, row_of, row):
    """Find the shortest path from a row to a free column, as Dijkstra does."""
    m = cost.shape[1]

    def visit(state):
        path, shortest, done, i, _, length = state
        reach = length + cost[i] - u[i] - v
        # a column without a path takes any, so that the search always ends
        better = ~done & ((reach < shortest) | (path < 0))
        path = jnp.where(better, i, path)
        shortest = jnp.where(better, reach, shortest)
        j = jnp.argmin(jnp.where(done, jnp.inf, shortest)).astype(i.dtype)
        done = done.at[j].set(True)
        return path, shortest, done, row_of[j], j, shortest[j]

    start = (
        jnp.full(m, -1, row.dtype),
        jnp.full_like(cost[0], jnp.inf),
        jnp.zeros(m, bool),
        row,
        -jnp.ones((), row.dtype),
        jnp.zeros((), cost.dtype),
    )
    path, shortest, done, _, sink, length = lax.while_loop(
        lambda state: state[3] >= 0, visit, start
    )
    return path, shortest, done, sink, length
