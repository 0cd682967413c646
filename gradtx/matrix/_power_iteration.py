"""Find the eigenvalue of largest magnitude by applying a matrix again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Numeric,
    PRNGKey,
    ShapeError,
    real_dtype,
    scalar_dtype,
    scaled_norm,
    working,
)


def power_iteration(
    matrix: jax.Array | Callable[[Any], Any],
    *,
    v0: Any = None,
    num_iters: Numeric = 100,
    error_tolerance: Numeric = 1e-6,
    precision: lax.Precision = lax.Precision.HIGHEST,
    key: PRNGKey | None = None,
) -> tuple[jax.Array, Any]:
    """Return the eigenvalue of largest magnitude, and its eigenvector.

    `v ← A·v/‖A·v‖`, until `‖A·v − eigenvalue·v‖ ≤ error_tolerance·|eigenvalue|`, with
    `eigenvalue = ⟨v, A·v⟩`

    Args:
      matrix: a symmetric or Hermitian matrix (n, n), or a linear function from a pytree
        to one of the same structure. Of other matrices, the largest eigenvalue must be
        real and unique.
      v0: the vector to begin with, (n,), or a pytree that `matrix` takes; by default
        uniform in [-1, 1). Not orthogonal to the eigenvector.
      num_iters: the most applications after the first one.
      error_tolerance: relative error at which the iteration ends.
      precision: of the products with an array.
      key: from which `v0` is drawn; `jax.random.key(0)` by default.

    Returns:
      The eigenvalue, a real scalar, and the eigenvector, of norm 1.

    Raises:
      ArgumentError: if `matrix` is a function and there is no `v0`.
      ShapeError: if `matrix` is an array that is no square.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> value, vector = gradtx.power_iteration(jnp.diag(jnp.array([1.0, -3.0])))
      >>> f"{value:.4f}"
      '-3.0000'

    Source: Golub & Van Loan 2013, "Matrix Computations", section 8.2.1.

    Differs from optax: of a zero matrix it returns 0 and a vector of norm 1, where
    there are NaNs; complex Hermitian matrices are taken; it computes in 32 bits or more.
    """
    if callable(matrix):
        if v0 is None:
            raise ArgumentError(
                "power_iteration: v0 is missing, and a function does not tell what it "
                "takes. Give v0, a pytree like the argument of `matrix`."
            )
        apply = matrix
        v0 = jax.tree.map(jnp.asarray, v0)
    else:
        a = _square(matrix)
        if v0 is None:
            key = jax.random.key(0) if key is None else key
            real = real_dtype(a.dtype)
            v0 = jax.random.uniform(key, a.shape[-1:], real, minval=-1, maxval=1)
        v0 = jnp.asarray(v0).astype(a.dtype)
        apply = lambda v: jnp.matmul(a, v, precision=precision)

    def measured(v):
        z = jax.tree.map(lambda y, x: jnp.asarray(y).astype(x.dtype), apply(v), v)
        value = _inner(v, z)
        rest = jax.tree.map(lambda y, x: y - _times(value, x), z, v)
        return v, z, value, scaled_norm(rest).value

    def unfinished(carry):
        (_, _, value, rest), step = carry
        allowed = jnp.asarray(error_tolerance).astype(rest.dtype) * jnp.abs(value)
        return ~(rest <= allowed) & (step < num_iters)

    def body(carry):
        (v, z, _, _), step = carry
        return measured(_unit(z, v)), step + 1

    start = measured(_unit(v0, v0))
    (v, z, value, _), _ = lax.while_loop(
        unfinished, body, (start, jnp.zeros((), jnp.int32))
    )
    return value, _unit(z, v)


def _square(matrix: Any) -> jax.Array:
    """Return a matrix in the dtype in which it is computed."""
    a = jnp.asarray(matrix)
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ShapeError(
            f"power_iteration: matrix must be square, got shape {a.shape}. "
            "For several matrices use jax.vmap."
        )
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        a = a.astype(scalar_dtype())
    return working(a)


def _inner(v: Any, z: Any) -> jax.Array:
    parts = [
        jnp.vdot(working(x), working(y), precision=lax.Precision.HIGHEST).real
        for x, y in zip(jax.tree.leaves(v), jax.tree.leaves(z), strict=True)
    ]
    dtype = jnp.result_type(*(p.dtype for p in parts))
    return jnp.sum(jnp.stack([p.astype(dtype) for p in parts]))


def _times(scalar: jax.Array, x: jax.Array) -> jax.Array:
    return x * scalar.astype(real_dtype(x.dtype)).astype(x.dtype)


def _unit(tree: Any, otherwise: Any) -> Any:
    """Return the tree divided by its norm, or another one where that is 0."""
    root, scale = scaled_norm(tree)
    zero = root == 0
    factor = 1 / jnp.where(zero, 1, root)
    return jax.tree.map(
        lambda x, o: jnp.where(zero, o, _times(factor, _times(scale, x))),
        tree,
        otherwise,
    )
