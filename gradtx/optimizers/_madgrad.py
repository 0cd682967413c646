"""MADGRAD: momentum and dual averaging over the cube root of summed squares."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    Count,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    abs_sq,
    chain,
    check_decay,
    check_non_negative,
    copies,
    map_leaves,
    safe_increment,
    scalar_like,
    second_moment_like,
    transformation,
    value_at,
    zero_count,
    zeros_like,
)
from gradtx.transforms import add_decayed_weights


class MadgradState(NamedTuple):
    """The state of `scale_by_madgrad`.

    Attributes:
      count: updates made so far.
      grad_sum_sq: weighted sum of the squares, in float32 or wider.
      s: weighted sum of the gradients, likewise.
      x0: the parameters at the start.
      step_size: the learning rate in use.
    """

    count: Count
    grad_sum_sq: PerParam
    s: PerParam
    x0: PerParam
    step_size: Scalar = None  # type: ignore[assignment]


@transformation(stage="rate", negates=True, needs={"params"})
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: Numeric = 0.9, eps: Numeric = 1e-6
):
    """Move towards the minimum of a model of all gradients met so far.

    `w ← (learning_rate + eps)·√t`; `G ← G + w·|g|²`; `s ← s + w·g`;
    `u ← (1 − momentum)·(p_0 − s/(∛G + eps) − p)`, t = 1, 2, …

    The updates are final: it must be the last link of a chain.

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      momentum: the share of the way that is left out at each step, in [0, 1).
      eps: added to the root, and to the learning rate.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters.

    Source: Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1, and the authors' code.
    """
    check_decay(momentum=momentum)
    check_non_negative(eps=eps)

    def init(params):
        return MadgradState(
            zero_count(),
            second_moment_like(params),
            zeros_like(params, wide=True),
            copies(params),
            scalar_like(params, value_at(learning_rate, zero_count())),
        )

    def update(updates, state, params=None, **extra):
        count = safe_increment(state.count)
        rate = value_at(learning_rate, state.count)
        weight = (rate + eps) * jnp.sqrt(count.astype(rate.dtype))

        def leaf(g, total, s, start, p, *, weight, momentum, eps):
            # An infinite sum would leave 0 of everything that was gathered. Both are
            # capped, and not their sum: an addition comes last (see `after`).
            most = jnp.finfo(total.dtype).max / 2
            total = jnp.minimum(total, most) + jnp.minimum(weight * abs_sq(g), most)
            s = s + weight * g
            step = (1 - momentum) * (start - p - s / (_cube_root(total) + eps))
            return step, total, s

        updates, total, s = map_leaves(
            leaf,
            updates,
            state.grad_sum_sq,
            state.s,
            state.x0,
            params,
            outputs=3,
            weight=weight,
            momentum=momentum,
            eps=eps,
        )
        rate = jnp.array(rate, state.step_size.dtype, copy=True)
        return updates, MadgradState(count, total, s, state.x0, rate)

    return init, update


def _cube_root(x):
    # with a derivative of 0 rather than infinity at 0, as `safe_sqrt`
    return jnp.cbrt(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


@transformation
def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: Numeric = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Numeric = 1e-6,
):
    """Descend by dual averaging with momentum.

    `p ← p + u`, with `u` of `scale_by_madgrad` for `g + weight_decay·p`

    Args:
      learning_rate, momentum, eps: as in `scale_by_madgrad`.
      weight_decay: as in `add_decayed_weights`.

    Source: Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1.
    """
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_madgrad(learning_rate, momentum, eps),
    )
