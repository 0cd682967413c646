"""Adamax: Adam with the largest gradient in place of the mean of squares."""

from __future__ import annotations

import jax.numpy as jnp

from gradtx.core import (
    MaskOrFn,
    Numeric,
    ScalarOrSchedule,
    bias_correction,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    transformation,
)
from gradtx.optimizers._adam import ScaleByAdamState, init_moments
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


@transformation(stage="precondition")
def scale_by_adamax(b1: Numeric = 0.9, b2: Numeric = 0.999, eps: Numeric = 1e-8):
    """Divide a running mean of updates by a decaying maximum of their magnitudes.

    `mu ← b1·mu + (1 − b1)·g`; `nu ← max(|g| + eps, b2·nu)`;
    `u ← (mu / (1 − b1^t)) / nu`, t = 1, 2, …

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of the maximum that one step keeps, in [0, 1).
      eps: added to the magnitude; keeps the quotient finite at zero.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or `eps` is negative.

    Source: Kingma & Ba 2014, arXiv:1412.6980, Algorithm 2; eps as in torch.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps)

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, *, b1, b2, eps, c1):
            mu = b1 * mu + (1 - b1) * g
            nu = jnp.maximum(jnp.abs(g) + eps, b2 * nu)
            return (mu / c1) / nu, mu, nu

        updates, mu, nu = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            outputs=3,
            b1=b1,
            b2=b2,
            eps=eps,
            c1=bias_correction(b1, count),
        )
        return updates, ScaleByAdamState(count, mu, nu)

    return init_moments, update


@transformation
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
):
    """Descend with Adamax's direction: `scale_by_adamax`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_adamax`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps: as in `scale_by_adamax`.

    Source: Kingma & Ba 2014, arXiv:1412.6980, Algorithm 2.
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@transformation
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: MaskOrFn | None = None,
):
    """Descend with Adamax's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_adamax`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps: as in `scale_by_adamax`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Kingma & Ba 2014, arXiv:1412.6980, Algorithm 2; Loshchilov & Hutter 2017,
    arXiv:1711.05101.
    """
    return chain(
        scale_by_adamax(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
