"""AdEMAMix: Adam with a second, much slower mean of gradients."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Count,
    DTypeLike,
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    bias_correction,
    capped_abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    second_moment_like,
    transformation,
    value_at,
    zero_count,
    zeros_like,
)
from gradtx.optimizers._adam import next_moments
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class ScaleByAdemamixState(NamedTuple):
    """The state of `scale_by_ademamix`.

    Attributes:
      count: updates made so far.
      count_m2: the same, for the schedules of the slow mean.
      m1: fast running mean of the gradients.
      m2: slow running mean of the gradients.
      nu: running mean of their squares; real, and float32 or wider.
    """

    count: Count
    count_m2: Count
    m1: PerParam
    m2: PerParam
    nu: PerParam


@transformation(stage="precondition")
def scale_by_ademamix(
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
):
    """Divide the sum of a fast and a slow mean of updates by the root of their squares.

    `m1 ← b1·m1 + (1 − b1)·g`; `m2 ← b3·m2 + (1 − b3)·g`; `nu ← b2·nu + (1 − b2)·|g|²`;
    `u ← (m1/(1 − b1^t) + alpha·m2) / (√(nu/(1 − b2^t) + eps_root) + eps)`

    Args:
      b1: the share of `m1` that one step keeps, in [0, 1).
      b2: the share of `nu` that one step keeps, in [0, 1).
      b3: the share of `m2` that one step keeps, in [0, 1), or a schedule of it.
      alpha: weight of the slow mean, or a schedule of it.
      eps: added to the root.
      eps_root: added under the root.
      mu_dtype: dtype of both means; by default the parameters'.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137, Algorithm 1.
    """
    check_decay(b1=b1, b2=b2, b3=b3)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleByAdemamixState(
            count=zero_count(),
            count_m2=zero_count(),
            m1=zeros_like(params, mu_dtype),
            m2=zeros_like(params, mu_dtype),
            nu=second_moment_like(params),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)

        def leaf(g, m1, m2, nu, *, b1, b2, b3, alpha, eps, eps_root, c1, c2):
            m1, nu = next_moments(g, m1, nu, b1, b2)
            m2 = b3 * m2 + (1 - b3) * g
            u = (m1 / c1 + alpha * m2) / (safe_sqrt(nu / c2 + eps_root) + eps)
            return u, m1, m2, nu

        updates, m1, m2, nu = map_leaves(
            leaf,
            updates,
            state.m1,
            state.m2,
            state.nu,
            outputs=4,
            b1=b1,
            b2=b2,
            b3=value_at(b3, state.count_m2) if callable(b3) else b3,
            alpha=value_at(alpha, state.count_m2) if callable(alpha) else alpha,
            eps=eps,
            eps_root=eps_root,
            c1=bias_correction(b1, count),
            c2=bias_correction(b2, count),
        )
        count_m2 = safe_increment(state.count_m2)
        return updates, ScaleByAdemamixState(count, count_m2, m1, m2, nu)

    return init, update


@transformation
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend with AdEMAMix's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_ademamix`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, b3, alpha, eps, eps_root, mu_dtype: as in `scale_by_ademamix`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137, Algorithm 1.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The state of `scale_by_simplified_ademamix`.

    Attributes:
      t: updates made so far.
      m: decayed sum of the gradients.
      n: running mean of their squares; real, and float32 or wider.
    """

    t: Count
    m: PerParam
    n: PerParam


@transformation(stage="precondition")
def scale_by_simplified_ademamix(
    b1: Numeric = 0.99,
    b2: Numeric = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
):
    """Divide a decayed sum of updates and the last of them by the root of their squares.

    `m ← b1·m + g`; `n ← b2·n + (1 − b2)·|g|²`;
    `u ← (m + alpha·g) / (√(n/(1 − b2^t) + eps_root) + eps)`

    Args:
      b1: the share of `m` that one step keeps, in [0, 1).
      b2: the share of `n` that one step keeps, in [0, 1).
      alpha: weight of the last gradient, or a schedule of it.
      eps: added to the root.
      eps_root: added under the root.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or an eps is negative.

    Source: Morwani et al. 2025, arXiv:2502.02431, section 5 (simplified AdEMAMix).
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return ScaleBySimplifiedAdEMAMixState(
            zero_count(), zeros_like(params), second_moment_like(params)
        )

    def update(updates, state, params=None, **extra):
        t = safe_increment(state.t)

        def leaf(g, m, n, *, b1, b2, alpha, eps, eps_root, c2):
            m = b1 * m + g
            n = b2 * n + (1 - b2) * capped_abs_sq(g)
            return (m + alpha * g) / (safe_sqrt(n / c2 + eps_root) + eps), m, n

        updates, m, n = map_leaves(
            leaf,
            updates,
            state.m,
            state.n,
            outputs=3,
            b1=b1,
            b2=b2,
            alpha=value_at(alpha, state.t) if callable(alpha) else alpha,
            eps=eps,
            eps_root=eps_root,
            c2=bias_correction(b2, t),
        )
        return updates, ScaleBySimplifiedAdEMAMixState(t, m, n)

    return init, update


@transformation
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.99,
    b2: Numeric = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Numeric = 1e-8,
    eps_root: Numeric = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend with the direction of simplified AdEMAMix and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, `u` of `scale_by_simplified_ademamix`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      b1, b2, alpha, eps, eps_root: as in `scale_by_simplified_ademamix`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Morwani et al. 2025, arXiv:2502.02431, section 5.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
