"""Prodigy: Adam that estimates its learning rate, faster than D-Adaptation."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Count,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    capped_abs_sq,
    check_decay,
    check_non_negative,
    check_positive,
    copies,
    map_leaves,
    safe_increment,
    safe_sqrt,
    scalar_like,
    second_moment_like,
    sum_leaves,
    transformation,
    value_at,
    zero_count,
    zeros_like,
)
from gradtx.optimizers._dadapt import adam_correction


class ProdigyState(NamedTuple):
    """The state of `prodigy`.

    Attributes:
      exp_avg: running mean of the gradients times the estimate.
      exp_avg_sq: running mean of the squares of these.
      grad_sum: slow weighted sum of the gradients.
      params0: the parameters at the start.
      estim_lr: the estimate of the learning rate, which never falls.
      numerator_weighted: the slow sum from which it is estimated.
      count: updates made so far.
      step_size: what multiplied the last direction.
    """

    exp_avg: PerParam
    exp_avg_sq: PerParam
    grad_sum: PerParam
    params0: PerParam
    estim_lr: Scalar
    numerator_weighted: Scalar
    count: Count
    step_size: Scalar = None  # type: ignore[assignment]


@transformation(stage="rate", negates=True, needs={"params"}, reach="tree")
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Numeric, Numeric] = (0.9, 0.999),
    beta3: Numeric | None = None,
    eps: Numeric = 1e-8,
    estim_lr0: Numeric = 1e-6,
    estim_lr_coef: Numeric = 1.0,
    weight_decay: Numeric = 0.0,
    safeguard_warmup: bool = False,
    *,
    bias_correction: bool = False,
    axis_name: AxisName | None = None,
):
    """Descend with Adam's direction at a learning rate that it estimates itself.

    `m ← b1·m + (1 − b1)·d·g`; `v ← b2·v + (1 − b2)·(d·g)²`;
    `s ← beta3·s + (d/d_0)·γ·g`; `r ← beta3·r + (d/d_0)·γ·⟨g, p_0 − p⟩`,
    γ = d·learning_rate; `d' ← max(d, estim_lr_coef·r/‖s‖₁)`;
    `p ← p − γ·m/(√v + d'·eps) − weight_decay·γ·p`; `d ← d'`

    Args:
      learning_rate: a factor of the estimate; a number, or a schedule whose largest
        value is 1.
      betas: the shares (b1, b2) of the running means that one step keeps.
      beta3: the share of the slow sums that one step keeps; by default `√b2`.
      eps: added to the root, times the estimate.
      estim_lr0: where the estimate d starts, above 0 and below its right value.
      estim_lr_coef: a factor of what is estimated.
      weight_decay: share of the parameter that one step of learning rate 1 removes.
      safeguard_warmup: whether `s` has d in the place of γ, so that a learning rate
        that starts near 0 does not blow the estimate up.
      bias_correction: whether γ has the factor `√(1 − b2^t)/(1 − b1^t)` too.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters.

    Source: Mishchenko & Defazio 2023, arXiv:2306.06101, Algorithm 4 and the authors'
    code.

    Differs from optax: the correction of the start is off unless asked for, as in the
    authors' code; a first gradient of 0 leaves the estimate alone, where optax's update
    is NaN; the scalars are float32.
    """
    b1, b2 = betas
    b3 = b2**0.5 if beta3 is None else beta3
    check_decay(b1=b1, b2=b2, beta3=b3)
    check_positive(estim_lr0=estim_lr0, estim_lr_coef=estim_lr_coef)
    check_non_negative(eps=eps, weight_decay=weight_decay)

    def init(params):
        first = value_at(learning_rate, zero_count()) * estim_lr0
        return ProdigyState(
            zeros_like(params, wide=True),
            second_moment_like(params),
            zeros_like(params, wide=True),
            copies(params),
            scalar_like(params, estim_lr0, axis_name=axis_name),
            scalar_like(params, axis_name=axis_name),
            zero_count(),
            scalar_like(params, first, axis_name=axis_name),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        real = state.estim_lr.dtype
        d = state.estim_lr
        rate = value_at(learning_rate, state.count)
        rate = rate * adam_correction(b1, b2, count, bias_correction)
        size = d * rate.astype(real)
        weight = d / estim_lr0 * (d if safeguard_warmup else size)

        def gather(g, m, v, s, *, b1, b2, b3, d, weight):
            m = b1 * m + (1 - b1) * d * g
            v = b2 * v + (1 - b2) * capped_abs_sq(d * g)
            return g, m, v, b3 * s + weight * g

        scalars = {"b1": b1, "b2": b2, "b3": b3, "d": d, "weight": weight}
        _, m, v, s = map_leaves(gather, updates, *state[:3], outputs=4, **scalars)
        product = sum_leaves(
            lambda g, start, p: jnp.conj(g) * (start - p),
            updates,
            state.params0,
            params,
            axis_name=axis_name,
        )
        weighted = b3 * state.numerator_weighted
        weighted = weighted + d / estim_lr0 * size * product.astype(real)
        length = sum_leaves(jnp.abs, s, axis_name=axis_name).astype(real)
        guess = estim_lr_coef * weighted / jnp.where(length > 0, length, 1)
        estimate = jnp.maximum(d, jnp.where(length > 0, guess, 0))

        def leaf(g, m, v, p, *, eps, decay, size, estimate):
            return -size * (m / (safe_sqrt(v) + estimate * eps) + decay * p)

        updates = map_leaves(
            leaf,
            updates,
            m,
            v,
            params,
            eps=eps,
            decay=weight_decay,
            size=size,
            estimate=estimate,
        )
        return updates, ProdigyState(
            m, v, s, state.params0, estimate, weighted, count, size
        )

    return init, update
