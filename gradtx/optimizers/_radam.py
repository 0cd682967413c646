"""RAdam: Adam that waits until its second moment can be trusted."""

from __future__ import annotations

import math

import jax.numpy as jnp

from gradtx.core import (
    Numeric,
    ScalarOrSchedule,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    scalar_dtype,
    transformation,
)
from gradtx.optimizers._adam import (
    ScaleByAdamState,
    corrected_mean,
    decays,
    init_moments,
    next_moments,
)
from gradtx.transforms import scale_by_learning_rate


@transformation(stage="precondition")
def scale_by_radam(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    threshold: Numeric = 5.0,
    *,
    nesterov: bool = False,
):
    """Rectify Adam's direction by the variance of its denominator.

    `mu`, `nu` as in `scale_by_adam`; `rho_inf = 2/(1 − b2) − 1`;
    `rho = rho_inf − 2·t·b2^t/(1 − b2^t)`, t = 1, 2, …; where `rho ≥ threshold`
    `u ← r·mean / (√(nu / (1 − b2^t) + eps_root) + eps)`, else `u ← mean`, with
    `r = √((rho − 4)(rho − 2)·rho_inf / ((rho_inf − 4)(rho_inf − 2)·rho))`.

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in (0.6, 1): below, `rho_inf` is
        under 4 and nothing is ever rectified.
      eps: added to the root.
      eps_root: added under the root.
      threshold: the least `rho` at which to rectify, above 4.
      nesterov: whether the mean looks one step ahead, as in `scale_by_adam`.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Liu et al. 2019, arXiv:1908.03265, Algorithm 2, whose threshold is 4; 5 is
    that of the authors' code and of torch.

    Differs from optax: `rho` is computed without cancellation; there it is off by up
    to 6e-3 of the update in float32.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return init_moments(params)

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        rho, rho_inf = _sma_length(b2, count)
        trusted = rho >= threshold
        # where nothing is rectified, any length above 4 keeps the root finite
        last = jnp.where(rho_inf > 4, rho_inf, 5.0)
        now = jnp.where(trusted, rho, last)
        r = jnp.sqrt((now - 4) * (now - 2) * last / ((last - 4) * (last - 2) * now))

        def leaf(
            g, mu, nu, *, b1, b2, eps, eps_root, c1, c2, c1_next, r, trusted
        ):  # g, mu, nu: one leaf, same shape
            mu, nu = next_moments(g, mu, nu, b1, b2)
            mean = corrected_mean(g, mu, b1, c1, c1_next, nesterov)
            rectified = r * mean / (safe_sqrt(nu / c2 + eps_root) + eps)
            return jnp.where(trusted > 0, rectified, mean), mu, nu

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            eps=eps,
            eps_root=eps_root,
            r=r,
            trusted=trusted,
            **decays(b1, b2, count),
        )
        return updates, ScaleByAdamState(count, mu, nu)

    return init, update


def _sma_length(b2, count):
    """Return the length of the simple mean that `nu` amounts to, now and at last.

    The paper's difference of two numbers near 2000 has no correct digit left in
    float32 at the first steps. With `x = −t·log(b2)` and `L = −log(b2)` it is
    `(rho_inf − 2/L) + (2/L)·(1 − x/expm1(x))`, and the last factor has a series
    without cancellation: `x/2 − x²/12 + x⁴/720 − …` (Bernoulli numbers).
    """
    if isinstance(b2, (int, float)):
        rate = -math.log(b2) if b2 > 0 else math.inf
    else:
        rate = -jnp.log(jnp.asarray(b2, scalar_dtype()))
    rho_inf = 2 / (1 - b2) - 1
    x = jnp.asarray(count, scalar_dtype()) * rate
    series = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
    series = (*series, -691 / 1307674368000)
    y, low = jnp.minimum(x, 0.5) ** 2, 0.0
    for term in reversed(series):
        low = (low + term) * y
    low = jnp.minimum(x, 0.5) / 2 - low
    high = 1 - x / jnp.expm1(jnp.maximum(x, 0.5))
    grown = jnp.where(x < 0.5, low, jnp.where(x > 80, 1, high))
    return (rho_inf - 2 / rate) + (2 / rate) * grown, rho_inf


@transformation
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    threshold: Numeric = 5.0,
    *,
    nesterov: bool = False,
):
    """Descend with RAdam's direction: `scale_by_radam`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_radam`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, threshold, nesterov: as in `scale_by_radam`.

    Source: Liu et al. 2019, arXiv:1908.03265, Algorithm 2.
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
