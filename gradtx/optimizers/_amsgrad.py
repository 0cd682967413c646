"""AMSGrad: Adam whose second moment never falls."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    Count,
    DTypeLike,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    bias_correction,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    second_moment_like,
    transformation,
)
from gradtx.optimizers._adam import init_moments, next_moments
from gradtx.transforms import scale_by_learning_rate


class ScaleByAmsgradState(NamedTuple):
    """The state of `scale_by_amsgrad`: Adam's, and the largest `nu` so far."""

    count: Count
    mu: PerParam
    nu: PerParam
    nu_max: PerParam


@transformation(stage="precondition")
def scale_by_amsgrad(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
):
    """Divide Adam's mean by the root of the largest mean of squares so far.

    `mu ← b1·mu + (1 − b1)·g`; `nu ← b2·nu + (1 − b2)·|g|²`; `nu_max ← max(nu_max, nu)`;
    `u ← (mu / (1 − b1^t)) / (√(nu_max / (1 − b2^t) + eps_root) + eps)`, t = 1, 2, …

    Args:
      b1: the share of `mu` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      mu_dtype: dtype of `mu`; by default the parameters'.
      bias_correction_mu: whether to divide `mu` by `1 − b1^t`.
      bias_correction_nu: whether to divide `nu_max` by `1 − b2^t`.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Reddi, Kale & Kumar 2018, arXiv:1904.09237, Algorithm 2, with the bias
    correction of torch.optim.Adam(amsgrad=True).

    Differs from optax: the maximum is over `nu` itself, as in the paper and in torch;
    there it is over the corrected `nu`, which its first steps dominate.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleByAmsgradState(
            *init_moments(params, mu_dtype), nu_max=second_moment_like(params)
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, mu, nu, top, *, b1, b2, eps, eps_root, c1, c2):
            mu, nu = next_moments(g, mu, nu, b1, b2)
            top = jnp.maximum(top, nu)
            return (mu / c1) / (safe_sqrt(top / c2 + eps_root) + eps), mu, nu, top

        updates, mu, nu, nu_max = map_leaves(
            leaf,
            updates,
            state.mu,
            state.nu,
            state.nu_max,
            outputs=4,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            c1=bias_correction(b1, count) if bias_correction_mu else 1.0,
            c2=bias_correction(b2, count) if bias_correction_nu else 1.0,
        )
        return updates, ScaleByAmsgradState(count, mu, nu, nu_max)

    return init, update


@transformation
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
):
    """Descend with AMSGrad's direction: `scale_by_amsgrad`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_amsgrad`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu: as in
        `scale_by_amsgrad`.

    Source: Reddi, Kale & Kumar 2018, arXiv:1904.09237, Algorithm 2.
    """
    return chain(
        scale_by_amsgrad(
            b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu
        ),
        scale_by_learning_rate(learning_rate),
    )
