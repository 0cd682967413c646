"""AdaBelief: steps that are large where gradients are as expected."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Count,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    transformation,
)
from gradtx.optimizers._adam import corrected_mean, decays, init_moments
from gradtx.transforms import scale_by_learning_rate


class ScaleByBeliefState(NamedTuple):
    """The state of links that divide by the gradient's distance from its mean.

    Attributes:
      count: updates made so far.
      mu: running mean of the gradients, not yet corrected for its start at 0.
      nu: running mean of their squared distances from it, likewise; real, and float32
        or wider.
    """

    count: Count
    mu: PerParam
    nu: PerParam


@transformation(stage="precondition")
def scale_by_belief(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
    *,
    nesterov: bool = False,
):
    """Divide a running mean of updates by the root of their mean squared surprise.

    `mu ← b1·mu + (1 − b1)·g`; `nu ← b2·nu + ((1 − b2)·|g − mu|² + eps_root)`;
    `u ← (mu / (1 − b1^t)) / (√(nu / (1 − b2^t)) + eps)`, t = 1, 2, …

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added to `nu` at every step, where it stays.
      nesterov: whether the numerator looks one step ahead, as in `scale_by_adam`.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleByBeliefState(*init_moments(params))

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, *, b1, b2, eps, eps_root, c1, c2, c1_next):
            mu = b1 * mu + (1 - b1) * g
            # the sum with `nu` comes last (see `after`)
            nu = b2 * nu + ((1 - b2) * capped_abs_sq(g - mu) + eps_root)
            mean = corrected_mean(g, mu, b1, c1, c1_next, nesterov)
            return mean / (safe_sqrt(nu / c2) + eps), mu, nu

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
        return updates, ScaleByBeliefState(count, mu, nu)

    return init, update


@transformation
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-16,
    eps_root: Numeric = 1e-16,
    *,
    nesterov: bool = False,
):
    """Descend with AdaBelief's direction: `scale_by_belief`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_belief`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, nesterov: as in `scale_by_belief`.

    Source: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2, without rectification.
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
