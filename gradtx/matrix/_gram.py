"""Take the steps of Newton–Schulz, on the matrix itself or on its Gram matrix alone."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def restarts(steps: int) -> list[int]:
    """Return before which steps the Gram matrix is formed from `X`, and `steps`.

    A Gram matrix is exact to eps of its largest eigenvalue only, and each step multiplies
    what is wrong with the smallest ones by `a²`, until they are negative and diverge.
    Measured in float32 for eight sets of coefficients, as spectral norm of what differs
    from the exact polynomial, over that of the plain form: formed once, up to 1e4 times
    for 5 steps and infinite for 10; for every 3 steps, up to 56 times; for every 2, up
    to 7 times, and never above `2·eps` times the steepest slope of the polynomial.
    """
    return [0, *range(2 - steps % 2, steps, 2), steps]


def gram_pays(short: int, long: int) -> bool:
    """Say whether the Gram form multiplies less, for any number of steps.

    In units of `2·short³` and with `r = long/short`, `s` plain steps cost `s·(2r + 1)`,
    and `s` steps between two restarts `4s − 3 + 2r`: less where `r > 3/2`.
    """
    return 2 * long > 3 * short


def is_tall(x: jax.Array) -> bool:
    """Say whether matrices have more rows than columns."""
    return x.shape[-2] > x.shape[-1]


def gram_of(x: jax.Array) -> jax.Array:
    """Return `X·Xᴴ`, or `Xᴴ·X` of tall matrices: of the shorter side."""
    return jnp.conj(x.mT) @ x if is_tall(x) else x @ jnp.conj(x.mT)


def plain_step(x: jax.Array, gram: jax.Array, row: jax.Array) -> jax.Array:
    """Return `a·X + (b·G + c·G²)·X`, or with `X` on the left where it is tall.

    Args:
      x: matrices (batch, m, n).
      gram: `gram_of(x)`, (batch, k, k) with `k = min(m, n)`.
      row: `(a, b, c)`.
    """
    a, b, c = row
    return a * x + _times(b * gram + c * (gram @ gram), x)


def gram_steps(x: jax.Array, gram: jax.Array, rows: Sequence[jax.Array]) -> jax.Array:
    """Take several steps with a single product by `X`, at their end.

    `P = a·I + b·G + c·G²`; `Q ← P·Q`; `G ← P·G·P`, from `Q = I`; then `X ← Q·X`

    All of these are polynomials of one `G`, so they commute and are Hermitian.

    Args:
      x: matrices (batch, m, n).
      gram: `gram_of(x)`, (batch, k, k) with `k = min(m, n)`.
      rows: `(a, b, c)` for each step, at least one; more than two cost accuracy, as
        `restarts` says.

    Source: the Gram form of Zhang, Amsel, Chen & Dao 2026,
    dao-lab.ai/blog/2026/gram-newton-schulz, which also restarts.
    """
    one = jnp.eye(gram.shape[-1], dtype=gram.dtype)[None]
    q = None
    for left, (a, b, c) in zip(reversed(range(len(rows))), rows, strict=True):
        p = a * one + b * gram + c * (gram @ gram)
        q = p if q is None else p @ q
        if left:
            gram = p @ gram @ p
    return _times(q, x)


def _times(p, x):  # p (batch, k, k), x (batch, m, n), k = min(m, n)
    return x @ p if is_tall(x) else p @ x
