"""Bring the singular values of matrices near 1 by an odd polynomial, iterated."""

from __future__ import annotations

import functools
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Numeric,
    ShapeError,
    abs_sq,
    cast,
    dtype_of,
    leaf_norm,
    real_dtype,
    safe_sqrt,
    working,
)
from gradtx.matrix._chunks import chunks_of, in_chunks
from gradtx.matrix._dimensions import MuonDimensionNumbers
from gradtx.matrix._gram import (
    gram_of,
    gram_pays,
    gram_steps,
    is_tall,
    plain_step,
    restarts,
)

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
    and for all matrices that `x` holds at once. Zeros stay zeros.

    On a CPU, matrices whose sides differ by more than 3/2 take two steps at a time on
    `A` alone, `Q ← p(A)·Q`, `A ← p(A)·A·p(A)` with `p(A) = a·I + b·A + c·A²`, then
    `X ← Q·X`: the same polynomial with 4/5 of the arithmetic where one side is four times
    the other. Large matrices come one after the other, so that temporaries stay small.

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
    2025, arXiv:2512.04632; "schatten": Grishina et al. 2025, arXiv:2506.10935; steps on
    `A`: Zhang, Amsel, Chen & Dao 2026, dao-lab.ai/blog/2026/gram-newton-schulz.

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
    matrices = _scaled(dims.fold(working(x)), preconditioning, eps)
    known = ns_steps if isinstance(ns_steps, int) else None
    matrices = _iterated(
        matrices,
        coefficients,
        eps,
        None if known else jnp.asarray(ns_steps),
        steps=known,
        preconditioning=preconditioning,
    )
    return cast(dims.unfold(matrices, x.shape), x.dtype)


# compiled whole, so that calls outside `jit` compile its branches and loops only once
@functools.partial(jax.jit, static_argnames=("steps", "preconditioning"))
def _iterated(x, coefficients, eps, traced, *, steps, preconditioning):
    """Return the matrices after `steps` steps, or `traced` ones where that is `None`."""
    if coefficients.ndim == 2:
        steps = len(coefficients)
    rows = jnp.atleast_2d(coefficients.astype(x.dtype))

    def row(i):
        return rows[jnp.minimum(i, len(rows) - 1)]

    def plain(x):  # (batch, m, n)
        x, gram = _begun(x, preconditioning, eps)
        x = plain_step(x, gram, row(0))
        return lax.fori_loop(
            1,
            traced if steps is None else steps,
            lambda i, x: plain_step(x, gram_of(x), row(i)),
            x,
            unroll=True if steps else None,
        )

    def by_gram(x):  # (batch, m, n)
        x, gram = _begun(x, preconditioning, eps)
        for start, stop in itertools.pairwise(restarts(steps)):
            gram = gram_of(x) if start else gram
            x = gram_steps(x, gram, [row(i) for i in range(start, stop)])
        return x

    form = by_gram if steps and gram_pays(*sorted(x.shape[1:])) else plain
    if form is plain and chunks_of(x) == 1:
        return plain(x)
    # A CPU saves no launches by a batch, but its cache and its memory without one.
    # Other devices multiply float32 in fewer bits by default. Emulated in tf32 and in
    # bfloat16, the Gram form is 10 to 60 times as far from the polynomial as the plain
    # one for sets of 5 and 8 steps, so they take the plain one, in one batch.
    return lax.platform_dependent(
        x, cpu=functools.partial(in_chunks, form), default=plain
    )


def _begun(x, preconditioning, eps):  # x (batch, m, n)
    """Return the matrices as they are before the first step, and their Gram matrices."""
    gram = gram_of(x)
    if preconditioning in ("aol", "schatten"):
        least = jnp.asarray(eps).astype(real_dtype(x.dtype))
        if preconditioning == "aol":
            total = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
        else:
            squares = jnp.sum(abs_sq(gram), axis=(-2, -1), keepdims=True)
            total = safe_sqrt(squares)  # of numbers up to 1: they do not overflow
        total = jnp.maximum(total, least)
        s = lax.rsqrt(jnp.where(total > 0, total, 1)).astype(x.dtype)
        x, gram = (x * s.mT if is_tall(x) else s * x), s * gram * s.mT
    return x, gram


def _scaled(x, preconditioning, eps):
    root, scale = leaf_norm(x, (-2, -1))  # so that 1e20 neither overflows nor vanishes
    x = x * scale.astype(dtype_of(x))
    if preconditioning == "spectral":
        root = jnp.linalg.svd(x, compute_uv=False)[:, :1, None]
    size = root + jnp.asarray(eps).astype(root.dtype) * scale
    return x / jnp.where(size > 0, size, 1).astype(dtype_of(x))
