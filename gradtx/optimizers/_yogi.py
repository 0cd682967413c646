"""Yogi: Adam whose second moment moves by the size of the square, not of the gap."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    Numeric,
    ScalarOrSchedule,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    full_like,
    map_leaves,
    safe_increment,
    safe_sqrt,
    second_moment_like,
    transformation,
    zero_count,
)
from gradtx.optimizers._adam import ScaleByAdamState, decays
from gradtx.transforms import scale_by_learning_rate


@transformation(
    stage="precondition",
    exempt={"P4": "its first moment starts at 1e-6, so that parameters move at once"},
)
def scale_by_yogi(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-3,
    eps_root: Numeric = 0.0,
    initial_accumulator_value: Numeric = 1e-6,
):
    """Divide a running mean of updates by the root of a second moment that rises slowly.

    `mu ← b1·mu + (1 − b1)·g`; `nu ← nu − (1 − b2)·sign(nu − |g|²)·|g|²`;
    `u ← (mu / (1 − b1^t)) / (√(nu / (1 − b2^t) + eps_root) + eps)`, t = 1, 2, …

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: one minus the share of the square by which `nu` moves, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      initial_accumulator_value: both moments before the first update.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or another argument is negative.

    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization",
    Algorithm 2.

    Differs from the paper: both moments start at a small number and are corrected as
    if they had started at 0, as in optax.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(
        eps=eps,
        eps_root=eps_root,
        initial_accumulator_value=initial_accumulator_value,
    )

    def init(params):
        return ScaleByAdamState(
            count=zero_count(),
            mu=full_like(params, initial_accumulator_value),
            nu=second_moment_like(params, initial_accumulator_value),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, *, b1, b2, eps, eps_root, c1, c2, c1_next):
            mu = b1 * mu + (1 - b1) * g
            square = capped_abs_sq(g)
            nu = nu - (1 - b2) * jnp.sign(nu - square) * square
            return (mu / c1) / (safe_sqrt(nu / c2 + eps_root) + eps), mu, nu

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            eps=eps,
            eps_root=eps_root,
            **decays(b1, b2, count),
        )
        return updates, ScaleByAdamState(count, mu, nu)

    return init, update


@transformation
def yogi(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-3,
):
    """Descend with Yogi's direction: `scale_by_yogi`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_yogi`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps: as in `scale_by_yogi`.

    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization",
    Algorithm 2.
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
