"""Say how a loss scale moves: down after overflows, up after long without any."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import Count, Inner, Reading, Scalar, safe_increment


class LossScaleState(NamedTuple):
    """The state of `dynamic_loss_scaling` and `static_loss_scaling`.

    Attributes:
      scale: the number by which the next loss is to be multiplied, a power of two.
      good_steps: gradients in a row that were finite, since the scale last grew.
      hysteresis_left: how many gradients that are not finite the scale still bears; at
        0 each of them lowers it.
      consecutive_skips: gradients in a row that were not finite.
      total_skips: gradients that were not finite, since `init`.
      at_min: gradients in a row that were not finite where the scale could not be
        lowered.
      underflows: finite gradients in which some leaf was all zero, since `init`.
      inner_state: the state of the wrapped transformation, which sees nothing of what
        is left out.
    """

    scale: Annotated[Scalar, Reading("loss_scale")]
    good_steps: Count
    hysteresis_left: Count
    consecutive_skips: Count
    total_skips: Annotated[Count, Reading("loss_scale_overflows")]
    at_min: Annotated[Count, Reading("loss_scale_at_minimum")]
    underflows: Annotated[Count, Reading("loss_scale_underflows")]
    inner_state: Inner


class Rule(NamedTuple):
    """How a scale moves; the fields are arguments of `dynamic_loss_scaling`."""

    initial: float
    growth: float
    backoff: float
    interval: int
    hysteresis: int
    minimum: float
    maximum: float


def moved(state: LossScaleState, rule: Rule, finite: jax.Array) -> LossScaleState:
    """Return the state with the scale and the counts after one more gradient."""
    left = jnp.where(finite, state.hysteresis_left, state.hysteresis_left - 1)
    left = jnp.maximum(left, 0)
    good = jnp.where(finite, safe_increment(state.good_steps), 0)
    grows = good >= rule.interval
    falls = ~finite & (left == 0)
    stuck = falls & (state.scale <= rule.minimum)

    scale = state.scale
    higher = jnp.minimum(scale * rule.growth, rule.maximum)
    lower = jnp.maximum(scale * rule.backoff, rule.minimum)
    at_min = jnp.where(stuck, safe_increment(state.at_min), state.at_min)
    return state._replace(
        scale=jnp.where(grows, higher, jnp.where(falls, lower, scale)),
        good_steps=jnp.where(grows, 0, good),
        hysteresis_left=jnp.where(grows, rule.hysteresis, left),
        consecutive_skips=jnp.where(finite, 0, safe_increment(state.consecutive_skips)),
        total_skips=jnp.where(
            finite, state.total_skips, safe_increment(state.total_skips)
        ),
        at_min=jnp.where(finite, 0, at_min),
    )
