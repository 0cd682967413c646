"""Take the inverse p-th root of a matrix with products only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    Numeric,
    check_count,
    is_static,
    real_dtype,
    scaled_norm,
)
from gradtx.matrix._power_iteration import _square, power_iteration


def matrix_inverse_pth_root(
    matrix: jax.Array,
    p: Numeric,
    num_iters: Numeric = 100,
    ridge_epsilon: Numeric = 1e-6,
    error_tolerance: Numeric = 1e-6,
    precision: lax.Precision = lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """Return `(A + ridge·I)^(−1/p)`, with `ridge = ridge_epsilon·max(λ_max, 1e-16)`.

    `T = ((p + 1)·I − M)/p`; `M ← T^p·M`; `H ← H·T`, until `M = I`, from
    `M = z·A`, `H = z^(1/p)·I`, `z = (p + 1)/(2·‖A‖)`

    Args:
      matrix: a symmetric or Hermitian positive semi-definite matrix (n, n).
      p: any positive integer; it may be traced.
      num_iters: the most iterations.
      ridge_epsilon: what is added to the diagonal, as a share of the largest eigenvalue.
      error_tolerance: largest element of `|M − I|` at which the iteration ends.
      precision: of the products.

    Returns:
      The root, in the matrix's dtype, and the error `max |M − I|`. Where rounding lets
      the error grow, the iteration ends with what was before.

    Raises:
      ArgumentError: if `p` is no positive integer.
      ShapeError: if `matrix` is not square.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> root, error = gradtx.matrix_inverse_pth_root(jnp.diag(jnp.array([8.0, 1.0])), 3)
      >>> [f"{x:.3f}" for x in jnp.diag(root)]
      ['0.500', '1.000']

    Source: Higham 2008, "Functions of Matrices", equation 7.18; the ridge: Anil et al.
    2020, arXiv:2002.09018, appendix.

    Differs from optax: it is right for every p, not only for 1, 2, 4 and 8; float64
    matrices are computed in float64; a zero matrix gives a finite root.
    """
    if is_static(p):
        p = int(p) if p == int(p) else p
        check_count(1, p=p)
    a = _square(matrix)
    real = real_dtype(a.dtype)
    one = jnp.eye(a.shape[0], dtype=a.dtype)
    order = jnp.asarray(p).astype(real)
    tolerance = jnp.asarray(error_tolerance).astype(real)

    largest, _ = power_iteration(a, precision=precision)
    ridge = jnp.asarray(ridge_epsilon).astype(real) * jnp.maximum(largest, 1e-16)
    damped = a + ridge.astype(a.dtype) * one
    z = (order + 1) / (2 * scaled_norm(damped).value)

    def times(x, y):
        return jnp.matmul(x, y, precision=precision)

    def unfinished(carry):
        step, _, _, error, improves = carry
        return (step < num_iters) & (error > tolerance) & improves

    def body(carry):
        step, m, h, error, _ = carry
        t = one + (one - m) / order.astype(m.dtype)
        new_m, new_h = times(_power(t, p, times), m), times(h, t)
        new_error = jnp.max(jnp.abs(new_m - one))
        # the first steps may lose a little before all is gained
        improves = new_error < error * 1.2
        kept = jax.tree.map(
            lambda new, old: jnp.where(improves, new, old),
            (new_m, new_h, new_error),
            (m, h, error),
        )
        return (step + 1, *kept, improves)

    m = damped * z.astype(a.dtype)
    h = one * (z ** (1 / order)).astype(a.dtype)
    error = jnp.max(jnp.abs(m - one))
    start = (jnp.zeros((), jnp.int32), m, h, error, jnp.ones((), bool))
    _, _, h, error, _ = lax.while_loop(unfinished, body, start)
    given = jnp.asarray(matrix).dtype
    return h.astype(given if jnp.issubdtype(given, jnp.inexact) else h.dtype), error


def _power(x: jax.Array, p: Numeric, times) -> jax.Array:
    """Return `x^p` by squaring; the loop is unrolled where `p` is known."""
    if isinstance(p, int):
        out = None
        while True:
            if p % 2:
                out = x if out is None else times(out, x)
            p //= 2
            if not p:
                assert out is not None
                return out
            x = times(x, x)

    def body(carry):
        left, x, out = carry
        odd = left % 2 == 1
        return left // 2, times(x, x), jnp.where(odd, times(out, x), out)

    start = (jnp.asarray(p).astype(jnp.int32), x, jnp.eye(x.shape[0], dtype=x.dtype))
    return lax.while_loop(lambda carry: carry[0] > 0, body, start)[2]
