"""ACProp: gradients over the root of a surprise that they did not yet enter."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    MaskOrFn,
    Numeric,
    ScalarOrSchedule,
    after,
    bias_correction,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    transformation,
)
from gradtx.optimizers._adabelief import ScaleByBeliefState
from gradtx.optimizers._adam import init_moments
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


@transformation(stage="precondition")
def scale_by_acprop(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
):
    """Divide updates by the root of the mean squared surprise of those before them.

    `u ← g / (√(nu / (1 − b2^(t−1))) + eps)`, with 1 under the root at t = 1; then
    `nu ← b2·nu + ((1 − b2)·|g − mu|² + eps_root)`; `mu ← b1·mu + (1 − b1)·g`

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added to `nu` at every step, where it stays.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.

    Differs from the paper: the surprise is the distance from the mean before this
    gradient entered it, as in other public JAX code.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleByBeliefState(*init_moments(params))

    def update(updates, state, params=None, **extra):
        first = state.count == 0
        # at the first update nothing has been seen, and the quotient is not used
        weight = bias_correction(b2, jnp.maximum(state.count, 1))

        def leaf(g, mu, nu, *, b1, b2, eps, eps_root, weight, first):
            power = jnp.where(first > 0, 1, nu / weight)
            # The update needs the old `nu`, which is copied for it: no way around it.
            nu = b2 * nu + ((1 - b2) * capped_abs_sq(g - mu) + eps_root)
            mu = after(b1 * mu + (1 - b1) * g, nu)
            return g / (safe_sqrt(power) + eps), mu, nu

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            weight=weight,
            first=first,
        )
        return updates, ScaleByBeliefState(safe_increment(state.count), mu, nu)

    return init, update


@transformation
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend with ACProp's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_acprop`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root: as in `scale_by_acprop`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
