"""Solve least squares for numbers that are not negative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import Numeric, ShapeError, working


def nnls(
    A: jax.Array,
    b: jax.Array,
    iters: int,
    unroll: int | bool = 1,
    L: Numeric | None = None,
) -> jax.Array:
    """Return the `x ≥ 0` for which `‖A·x − b‖` is smallest, to some error.

    `x ← max(y − (Aᵀ·A·y − Aᵀ·b)/L, 0)`; `y ← x + (c − 1)/c_next·(x − x_old)`, with
    `c_next = (1 + √(1 + 4·c²))/2`

    Args:
      A: a matrix (m, n).
      b: a vector (m,), or several as a matrix (m, k).
      iters: number of steps; the error of the square falls with its square.
      unroll: as in `jax.lax.scan`.
      L: a bound on the largest eigenvalue of `Aᵀ·A`; by default the lesser of its
        Frobenius norm and its largest sum of magnitudes of a column.

    Returns:
      `x`, of shape (n,) or (n, k) and the dtype of `b`.

    Raises:
      ShapeError: if `A` is no matrix or `b` does not fit.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> A = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> [f"{x:.2f}" for x in gradtx.nnls(A, jnp.array([5.0, 6.0]), 1000)]
      ['0.00', '1.70']

    Source: Polyak 2015, "Projected gradient method for non-negative least square", the
    fast method; Beck & Teboulle 2009, "FISTA", section 4.
    """
    if A.ndim != 2 or b.ndim not in (1, 2) or b.shape[0] != A.shape[0]:
        raise ShapeError(
            f"nnls: expected A (m, n) and b (m,) or (m, k), got {A.shape} and {b.shape}."
        )
    left, right = working(A), working(b)
    precise = lax.Precision.HIGHEST
    square = jnp.matmul(left.T, left, precision=precise)
    target = jnp.matmul(left.T, right, precision=precise)
    if L is None:
        magnitudes = jnp.abs(square)
        columns = jnp.max(jnp.sum(magnitudes, axis=0), initial=0)
        L = jnp.minimum(jnp.sqrt(jnp.sum(magnitudes * magnitudes)), columns)
    bound = jnp.asarray(L).astype(square.dtype)
    bound = jnp.where(bound == 0, 1, bound)

    def step(carry, _):
        x, y, c = carry
        c_next = (1 + jnp.sqrt(1 + 4 * c * c)) / 2
        slope = jnp.matmul(square, y, precision=precise) - target
        x_next = jnp.maximum(y - slope / bound, 0)
        y_next = x_next + (c - 1) / c_next * (x_next - x)
        return (x_next, y_next, c_next), None

    x = jnp.zeros_like(target)
    # from 0, as in optax: the second step then repeats the first one
    start = (x, x, jnp.zeros((), x.dtype))
    (x, _, _), _ = lax.scan(step, start, length=iters, unroll=unroll)
    return x.astype(b.dtype)
