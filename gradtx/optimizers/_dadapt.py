"""D-Adaptation: Adam that estimates its learning rate from the distance travelled."""

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
    after,
    bias_correction as corrected,
    capped_abs_sq,
    check_decay,
    check_non_negative,
    check_positive,
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


class DAdaptAdamWState(NamedTuple):
    """The state of `dadapt_adamw`.

    Attributes:
      exp_avg: running mean of the gradients times the learning rate.
      exp_avg_sq: running mean of their squares.
      grad_sum: slow running mean of the gradients times the learning rate.
      estim_lr: the estimate of the learning rate, which never falls.
      numerator_weighted: running mean from which it is estimated.
      count: updates made so far.
      step_size: what multiplied the last gradient.
    """

    exp_avg: PerParam
    exp_avg_sq: PerParam
    grad_sum: PerParam
    estim_lr: Scalar
    numerator_weighted: Scalar
    count: Count
    step_size: Scalar = None  # type: ignore[assignment]


def adam_correction(b1: Numeric, b2: Numeric, count: Numeric, wanted: bool) -> Numeric:
    """Return the factor by which Adam's corrections of its start change a step."""
    return corrected(b2, count) ** 0.5 / corrected(b1, count) if wanted else 1.0


@transformation(stage="rate", negates=True, needs={"params"}, reach="tree")
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Numeric, Numeric] = (0.9, 0.999),
    eps: Numeric = 1e-8,
    estim_lr0: Numeric = 1e-6,
    weight_decay: Numeric = 0.0,
    *,
    bias_correction: bool = False,
    growth_rate: Numeric = float("inf"),
    axis_name: AxisName | None = None,
):
    """Descend with Adam's direction at a learning rate that it estimates itself.

    `r ← c·r + (1 − c)·γ·⟨g, s/(√v + eps)⟩`, c = √b2, γ = d·learning_rate;
    `m ← b1·m + (1 − b1)·γ·g`; `v ← b2·v + (1 − b2)·g²`; `s ← c·s + (1 − c)·γ·g`;
    `d ← max(d, min(r/((1 − c)·‖s‖₁), growth_rate·d))`;
    `p ← p − m/(√v + eps) − weight_decay·γ·p`

    Args:
      learning_rate: a factor of the estimate; a number, or a schedule whose largest
        value is 1.
      betas: the shares (b1, b2) of the running means that one step keeps.
      eps: added to the root.
      estim_lr0: where the estimate d starts, above 0 and below its right value.
      weight_decay: share of the parameter that one step of learning rate 1 removes.
      bias_correction: whether γ has the factor `√(1 − b2^t)/(1 − b1^t)` too.
      growth_rate: by how much the estimate may grow in one step, above 1.
      axis_name: mapped axes over which the parameters are sharded.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters.

    Source: Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5 (D-Adapt Adam) and
    the authors' code.

    Differs from optax: the correction of the start is off unless asked for, as in the
    authors' code; a first gradient of 0 leaves the estimate alone, where optax's is NaN
    from then on; the scalars are float32.
    """
    b1, b2 = betas
    check_decay(b1=b1, b2=b2)
    check_positive(estim_lr0=estim_lr0, growth_rate=growth_rate)
    check_non_negative(eps=eps, weight_decay=weight_decay)
    slow = b2**0.5

    def init(params):
        first = value_at(learning_rate, zero_count()) * estim_lr0
        return DAdaptAdamWState(
            zeros_like(params, wide=True),
            second_moment_like(params),
            zeros_like(params, wide=True),
            scalar_like(params, estim_lr0, axis_name=axis_name),
            scalar_like(params, axis_name=axis_name),
            zero_count(),
            scalar_like(params, first, axis_name=axis_name),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        real = state.estim_lr.dtype
        rate = value_at(learning_rate, state.count)
        rate = rate * adam_correction(b1, b2, count, bias_correction)
        size = state.estim_lr * rate.astype(real)

        def seen(g, v, s, *, eps, least):
            root = jnp.sqrt(jnp.maximum(v, least))  # as `safe_sqrt`
            return jnp.conj(g) * s / (root + eps)

        product = sum_leaves(
            seen,
            updates,
            state.exp_avg_sq,
            state.grad_sum,
            axis_name=axis_name,
            apart=state.estim_lr,
            eps=eps,
            least=float(jnp.finfo(real).tiny),
        )

        def leaf(g, m, v, s, p, *, b1, b2, slow, eps, decay, size, product):
            m = b1 * m + (1 - b1) * size * g
            v = b2 * after(v, product) + (1 - b2) * capped_abs_sq(g)
            s = slow * after(s, product) + (1 - slow) * size * g
            return -decay * size * p - m / (safe_sqrt(v) + eps), m, v, s

        updates, m, v, s = map_leaves(
            leaf,
            updates,
            *state[:3],
            params,
            outputs=4,
            b1=b1,
            b2=b2,
            slow=slow,
            eps=eps,
            decay=weight_decay,
            size=size,
            product=product,
        )
        weighted = slow * state.numerator_weighted
        weighted = weighted + (1 - slow) * size * product.astype(real)
        length = (1 - slow) * sum_leaves(jnp.abs, s, axis_name=axis_name).astype(real)
        guess = jnp.where(length > 0, weighted / jnp.where(length > 0, length, 1), 0)
        guess = jnp.minimum(guess, growth_rate * state.estim_lr)
        estimate = jnp.maximum(state.estim_lr, guess)
        return updates, DAdaptAdamWState(m, v, s, estimate, weighted, count, size)

    return init, update
