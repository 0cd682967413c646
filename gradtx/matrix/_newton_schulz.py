"""Bring the singular values of matrices near 1 by an odd polynomial, iterated."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Numeric,
    ShapeError,
    cast,
    dtype_of,
    leaf_norm,
    real_dtype,
    working,
)
from gradtx.matrix._dimensions import MuonDimensionNumbers

_PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")


def orthogonalize_via_newton_schulz(
    x: jax.Array,
    ns_coeffs: Any,
    ns_steps: Numeric = 5,
    preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius",
    eps: Numeric = 1e-8,
    dimension_numbers: MuonDimensionNumbers | None = None,
) -> jax.Array:
    """Return the nearest orthogonal matrix, roughly: `U·Vᵀ` of `x = U·S·Vᵀ`.

    `X ← x/(‖x‖_F + eps)`; then at each step `A ← X·Xᴴ`, `X ← a·X + (b·A + c·A²)·X`

    The polynomial moves the singular values towards 1 or, with Muon's coefficients,
    quickly into a band around it. It runs on the shorter side, in float32 or wider,
    and once for all matrices that `x` holds. Zeros stay zeros.

    Args:
      x: a matrix, or an array that holds matrices as `dimension_numbers` say.
      ns_coeffs: `(a, b, c)`, or an array `(n, 3)` with those of each step.
      ns_steps: how many steps, at least 1; unused where `ns_coeffs` has two axes.
      preconditioning: how `X` is scaled before the first step: by the Frobenius norm,
        by the spectral norm, row by row ("aol", rows by `1/√(Σ_j |A_ij|)`) or by the
        root of the norm of `A` ("schatten").
      eps: added to the norm, or the least of what stands under the root.
      dimension_numbers: which axes are rows and columns; the others count matrices.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      ArgumentError: if the preconditioning is unknown.
      ShapeError: if `x` is no matrix and has no dimension numbers, or the coefficients
        do not come in threes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> gradtx.orthogonalize_via_newton_schulz(x, (2, -1.5, 0.5), 9).round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; "aol": Boissin et al.
    2025, arXiv:2512.04632; "schatten": Grishina et al. 2025, arXiv:2506.10935.

    Differs from optax: float16 and bfloat16 are computed in float32; "aol" and
    "schatten" start from `x/(‖x‖_F + eps)`, so that eps does not depend on the size of
    gradients; "schatten" conjugates complex numbers.
    """
    if preconditioning not in _PRECONDITIONINGS:
        raise ArgumentError(
            f"preconditioning must be one of {list(_PRECONDITIONINGS)}, got "
            f"{preconditioning!r}.",
            "orthogonalize_via_newton_schulz",
        )
    if dimension_numbers is None and x.ndim != 2:
        raise ShapeError(
            f"expected a matrix, got shape {x.shape}. Give dimension_numbers= to say "
            "which axes are rows and columns.",
            "orthogonalize_via_newton_schulz",
        )
    coefficients = jnp.asarray(ns_coeffs)
    if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != 3:
        raise ShapeError(
            f"ns_coeffs must have shape (3,) or (n, 3), got {coefficients.shape}.",
            "orthogonalize_via_newton_schulz",
        )
    if x.size == 0:
        return x
    dims = dimension_numbers or MuonDimensionNumbers()
    matrices = dims.fold(working(x))
    tall = matrices.shape[1] > matrices.shape[2]
    if tall:
        matrices = matrices.mT
    matrices = _iterated(matrices, coefficients, ns_steps, preconditioning, eps)
    return cast(dims.unfold(matrices.mT if tall else matrices, x.shape), x.dtype)


def _iterated(x, coefficients, steps, preconditioning, eps):  # x (batch, m, n), m ≤ n
    coefficients = coefficients.astype(x.dtype)
    if coefficients.ndim == 2:
        steps = len(coefficients)
    coefficients = jnp.atleast_2d(coefficients)

    def step(x, gram, i):  # gram (batch, m, m)
        a, b, c = coefficients[jnp.minimum(i, len(coefficients) - 1)]
        return a * x + (b * gram + c * (gram @ gram)) @ x

    x = _scaled(x, preconditioning, eps)
    gram = _gram(x)
    if preconditioning in ("aol", "schatten"):
        least = jnp.asarray(eps).astype(real_dtype(x.dtype))
        if preconditioning == "aol":
            total = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
        else:
            total = leaf_norm(gram, (-2, -1)).value
        total = jnp.maximum(total, least)
        s = lax.rsqrt(jnp.where(total > 0, total, 1)).astype(x.dtype)
        x, gram = s * x, s * gram * s.mT
    x = step(x, gram, 0)
    known = isinstance(steps, int)
    return lax.fori_loop(
        1, steps, lambda i, x: step(x, _gram(x), i), x, unroll=True if known else None
    )


def _scaled(x, preconditioning, eps):
    root, scale = leaf_norm(x, (-2, -1))  # so that 1e20 neither overflows nor vanishes
    x = x * scale.astype(dtype_of(x))
    if preconditioning == "spectral":
        root = jnp.linalg.svd(x, compute_uv=False)[:, :1, None]
    size = root + jnp.asarray(eps).astype(root.dtype) * scale
    return x / jnp.where(size > 0, size, 1).astype(dtype_of(x))


def _gram(x):
    return x @ jnp.conj(x.mT)
