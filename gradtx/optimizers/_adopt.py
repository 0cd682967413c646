"""ADOPT: Adam that divides by what it knew before this gradient."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.core import (
    DTypeLike,
    Numeric,
    ScalarOrSchedule,
    after,
    capped_abs_sq,
    chain,
    check_decay,
    check_positive,
    map_leaves,
    safe_increment,
    safe_sqrt,
    scalar_dtype,
    transformation,
)
from gradtx.optimizers._adam import ScaleByAdamState, init_moments
from gradtx.transforms import scale_by_learning_rate


@transformation(stage="precondition")
def scale_by_adopt(
    b1: Numeric = 0.9,
    b2: Numeric = 0.9999,
    eps: Numeric = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Numeric] | None = None,
):
    """Take a running mean of updates over the root of the second moment before them.

    At first `nu ← |g|²`, `u ← 0`; then for t = 1, 2, …
    `n ← g/max(√nu, eps)` within `±t^¼`; `mu ← b1·mu + (1 − b1)·n`; `u ← mu`;
    `nu ← b2·nu + (1 − b2)·|g|²`

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: the least root to divide by, above 0.
      mu_dtype: dtype of `mu`; by default the parameters'.
      nesterov: whether `u ← b1·mu + (1 − b1)·n`.
      use_clipping: whether `n` is bounded.
      clip_value_fn: the bound as a function of t; by default `t^¼`.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or `eps` is not positive.

    Source: Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2 and section 5 (clipping).
    """
    check_decay(b1=b1, b2=b2)
    check_positive(eps=eps)

    def init(params):
        return init_moments(params, mu_dtype)

    def update(updates, state, params=None, **extra):
        t = state.count.astype(scalar_dtype())
        bound = t**0.25 if clip_value_fn is None else clip_value_fn(t)

        def leaf(g, mu, nu, *, b1, b2, eps, bound, first):
            n = g / jnp.maximum(safe_sqrt(nu), eps)
            if use_clipping:
                n = _bounded(n, bound)
            # the first gradient sets `nu`, which is 0, and leaves `mu` alone
            mu = jnp.where(first > 0, 1, b1) * mu + jnp.where(first > 0, 0, 1 - b1) * n
            u = b1 * mu + (1 - b1) * n if nesterov else mu
            nu = b2 * nu + jnp.where(first > 0, 1, 1 - b2) * capped_abs_sq(g)
            return (1 - first) * u, mu, after(nu, mu)

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            b1=b1,
            b2=b2,
            eps=eps,
            bound=bound,
            first=state.count == 0,
        )
        return updates, ScaleByAdamState(safe_increment(state.count), mu, nu)

    return init, update


def _bounded(n, bound):
    """Bound the elements of `n`; of complex ones both parts."""
    if jnp.iscomplexobj(n):
        real, imag = (jnp.clip(part, -bound, bound) for part in (n.real, n.imag))
        return real + 1j * imag
    return jnp.clip(n, -bound, bound)


@transformation
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.9999,
    eps: Numeric = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], Numeric] | None = None,
):
    """Descend with ADOPT's direction: `scale_by_adopt`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_adopt`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, mu_dtype, nesterov, use_clipping, clip_value_fn: as in
        `scale_by_adopt`.

    Source: Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2.
    """
    return chain(
        scale_by_adopt(
            b1,
            b2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            use_clipping=use_clipping,
            clip_value_fn=clip_value_fn,
        ),
        scale_by_learning_rate(learning_rate),
    )
