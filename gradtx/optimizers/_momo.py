"""MoMo: momentum and Adam at the step that a bound of the objective allows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Count,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    bias_correction,
    capped,
    check_decay,
    check_non_negative,
    map_leaves,
    safe_increment,
    safe_sqrt,
    scalar_like,
    second_moment_like,
    sum_leaves,
    sum_of_squares,
    transformation,
    value_at,
    zero_count,
    zeros_like,
)
from gradtx.optimizers._adam import next_moments


class MomoState(NamedTuple):
    """The state of `momo`.

    Attributes:
      exp_avg: running mean of the gradients.
      barf: running mean of the values of the objective.
      gamma: running mean of the products of gradients and parameters.
      lb: the lower bound of the objective in use.
      count: updates made so far.
      step_size: the step of the last update.
    """

    exp_avg: PerParam
    barf: Scalar
    gamma: Scalar
    lb: Scalar
    count: Count
    step_size: Scalar = None  # type: ignore[assignment]


class MomoAdamState(NamedTuple):
    """The state of `momo_adam`.

    Attributes:
      exp_avg: running mean of the gradients.
      exp_avg_sq: running mean of their squares.
      barf, gamma, lb, count, step_size: as in `MomoState`.
    """

    exp_avg: PerParam
    exp_avg_sq: PerParam
    barf: Scalar
    gamma: Scalar
    lb: Scalar
    count: Count
    step_size: Scalar = None  # type: ignore[assignment]


@transformation(
    stage="rate", negates=True, needs={"params", "value"}, reach="tree", ulps=512
)
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Numeric = 0.9,
    lower_bound: Numeric = 0.0,
    weight_decay: Numeric = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: AxisName | None = None,
):
    """Descend along the momentum, as far as a model of the objective allows.

    `m ← beta·m + (1 − beta)·g`; `f ← beta·f + (1 − beta)·value`;
    `c ← beta·c + (1 − beta)·⟨g, p⟩`, each the first one itself at the first update;
    `step = min(α, max(D·(f − lower_bound − c) + ⟨m, p⟩, 0)/‖m‖²)`,
    `D = 1 + α·weight_decay`, `α = learning_rate`; `p ← p/D − step·m`

    `update` needs `value=`, that of the objective at the parameters.

    Args:
      learning_rate: the largest step; a number, or a schedule of the updates made.
      beta: the share of the running means that one step keeps, in [0, 1).
      lower_bound: what the objective cannot fall below.
      weight_decay: share of the parameter that one step of length 1 removes.
      adapt_lower_bound: whether the bound is raised on the way.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters or no `value`.

    Source: Schaipp et al. 2023, arXiv:2305.07583, Algorithm 1 and equation 17 (bound).
    """
    check_decay(beta=beta)
    check_non_negative(weight_decay=weight_decay)

    def init(params):
        scalar = lambda x: scalar_like(params, x, axis_name=axis_name)
        rate = value_at(learning_rate, zero_count())
        return MomoState(
            zeros_like(params, wide=True),
            scalar(0.0),
            scalar(0.0),
            scalar(lower_bound),
            zero_count(),
            scalar(rate),
        )

    def update(updates, state, params=None, *, value, **extra):
        real = state.barf.dtype
        share = jnp.where(state.count == 0, 0, jnp.asarray(beta, real))

        def leaf(g, m, *, share):
            return g, share * m + (1 - share) * g

        _, m = map_leaves(leaf, updates, state.exp_avg, outputs=2, share=share)
        norm = sum_of_squares(m, axis_name=axis_name).astype(real)
        product, along = _products(updates, m, params, norm, axis_name)
        f = share * state.barf + (1 - share) * jnp.asarray(value).astype(real)
        c = share * state.gamma + (1 - share) * product
        rate = value_at(learning_rate, state.count).astype(real)
        step, lb = _step(f - c, along, norm, rate, weight_decay, 1.0, state.lb, lowest)

        def move(g, m, p, *, step, shrink):
            return -step * m - shrink * p

        shrink = rate * weight_decay / (1 + rate * weight_decay)
        updates = map_leaves(move, updates, m, params, step=step, shrink=shrink)
        return updates, MomoState(m, f, c, lb, safe_increment(state.count), step)

    lowest = lower_bound if adapt_lower_bound else None
    return init, update


@transformation(
    stage="rate", negates=True, needs={"params", "value"}, reach="tree", ulps=512
)
def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: Numeric = 0.9,
    b2: Numeric = 0.999,
    eps: Numeric = 1e-8,
    lower_bound: Numeric = 0.0,
    weight_decay: Numeric = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: AxisName | None = None,
):
    """Descend in Adam's direction, as far as a model of the objective allows.

    `m, v` as in Adam; `f ← b1·f + (1 − b1)·value`; `c ← b1·c + (1 − b1)·⟨g, p⟩`;
    `P = √(v/(1 − b2^t)) + eps`;
    `step = min(α/B, max(D·(f − B·lower_bound − c) + ⟨m, p⟩, 0)/⟨m, m/P⟩)`,
    `B = 1 − b1^t`, `D = 1 + α·weight_decay`, `α = learning_rate`;
    `p ← p/D − step·m/P`

    `update` needs `value=`, that of the objective at the parameters.

    Args:
      learning_rate: the largest step; a number, or a schedule of the updates made.
      b1, b2, eps: as in `scale_by_adam`.
      lower_bound, weight_decay, adapt_lower_bound, axis_name: as in `momo`.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters or no `value`.

    Source: Schaipp et al. 2023, arXiv:2305.07583, Algorithm 3 (MoMo-Adam).
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, weight_decay=weight_decay)

    def init(params):
        scalar = lambda x: scalar_like(params, x, axis_name=axis_name)
        return MomoAdamState(
            zeros_like(params, wide=True),
            second_moment_like(params),
            scalar(0.0),
            scalar(0.0),
            scalar(lower_bound),
            zero_count(),
            scalar(value_at(learning_rate, zero_count())),
        )

    def update(updates, state, params=None, *, value, **extra):
        real = state.barf.dtype
        count = safe_increment(state.count)

        def leaf(g, m, v, *, b1, b2):
            return g, *next_moments(capped(g), m, v, b1, b2)

        _, m, v = map_leaves(leaf, updates, *state[:2], outputs=3, b1=b1, b2=b2)
        c1, c2 = bias_correction(b1, count), bias_correction(b2, count)

        def squared(m, v, *, eps, c2, least):
            root = jnp.sqrt(jnp.maximum(v / c2, least))  # as `safe_sqrt`
            return jnp.conj(m) * (m / (root + eps))

        norm = sum_leaves(
            squared,
            m,
            v,
            axis_name=axis_name,
            apart=state.barf,
            eps=eps,
            c2=c2,
            least=float(jnp.finfo(real).tiny),
        ).astype(real)
        product, along = _products(updates, m, params, norm, axis_name)
        c1 = c1.astype(real)
        f = b1 * state.barf + (1 - b1) * jnp.asarray(value).astype(real)
        c = b1 * state.gamma + (1 - b1) * product
        rate = value_at(learning_rate, state.count).astype(real)
        step, lb = _step(f - c, along, norm, rate, weight_decay, c1, state.lb, lowest)

        def move(g, m, v, p, *, eps, c2, step, shrink):
            return -step * (m / (safe_sqrt(v / c2) + eps)) - shrink * p

        shrink = rate * weight_decay / (1 + rate * weight_decay)
        updates = map_leaves(
            move, updates, m, v, params, eps=eps, c2=c2, step=step, shrink=shrink
        )
        return updates, MomoAdamState(m, v, f, c, lb, count, step)

    lowest = lower_bound if adapt_lower_bound else None
    return init, update


def _products(updates, m, params, norm, axis_name):
    """Return the products of the gradients and of their mean with the parameters.

    The sums are capped, and not what is summed: XLA would keep that in memory.
    """

    def product(x, p):
        return jnp.conj(x) * p

    most = float(jnp.finfo(norm.dtype).max) ** 0.75

    def capped_sum(x):
        total = sum_leaves(product, x, params, axis_name=axis_name).astype(norm.dtype)
        # infinities that cancel are of numbers beyond all range, but for a NaN in `m`
        total = jnp.where(jnp.isnan(total) & ~jnp.isnan(norm), 0, total)
        return jnp.clip(total, -most, most)

    return capped_sum(updates), capped_sum(m)


def _step(
    gap: jax.Array,
    along: jax.Array,
    norm: jax.Array,
    rate: jax.Array,
    decay: Numeric,
    c1: Numeric,
    bound: jax.Array,
    lowest: Numeric | None,
) -> tuple[jax.Array, jax.Array]:
    """Return how far the model of the objective lets one go, and the next bound.

    Args:
      gap: mean value of the objective less the mean of `⟨g, p⟩`.
      along: `⟨m, p⟩`.
      norm: squared norm of the direction, in its own metric.
      rate: the longest step, before the correction `c1` of the start.
      decay: the weight decay.
      c1: the weight that the means have seen.
      bound: the lower bound of the objective in use.
      lowest: where the bound may not fall below; `None` for one that stays.
    """
    grown = 1 + rate * decay
    if lowest is not None:
        reach = grown * gap + along
        raised = jnp.maximum(reach / (2 * c1 * grown), lowest)
        bound = jnp.where(reach < grown * c1 * bound, raised, bound)
    room = jnp.maximum(grown * (gap - c1 * bound) + along, 0)
    still = norm <= float(jnp.finfo(jnp.float64).eps)
    step = jnp.where(still, 0, room / jnp.where(still, 1, norm))
    step = jnp.minimum(rate / c1, step)
    if lowest is not None:
        bound = jnp.maximum((gap + along - step * norm / 2) / c1, lowest)
    return step, bound
