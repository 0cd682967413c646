"""AdaGrad: steps that shrink with the sum of squared gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    Numeric,
    PerParam,
    ScalarOrSchedule,
    abs_sq,
    chain,
    check_non_negative,
    map_leaves,
    second_moment_like,
    transformation,
)
from gradtx.transforms import scale_by_learning_rate


class ScaleByRssState(NamedTuple):
    """The state of `scale_by_rss`: the sum of all squared gradients."""

    sum_of_squares: PerParam


@transformation(stage="precondition")
def scale_by_rss(
    initial_accumulator_value: Numeric = 0.1,
    eps: Numeric = 1e-7,
    *,
    eps_in_sqrt: bool = True,
):
    """Divide updates by the root of the sum of all their squares.

    `sum ← sum + |g|²`; `u ← g / √(sum + eps)`, or `u ← g / (√sum + eps)`; 0 where
    `sum` is 0.

    Args:
      initial_accumulator_value: the sum before the first update, 0 or more.
      eps: keeps the quotient finite.
      eps_in_sqrt: whether `eps` stands under the root (optax, Keras) or beside it
        (torch, whose defaults are 0 for the sum and 1e-10 for eps).

    Raises:
      ArgumentError: if the initial value or `eps` is negative.

    Source: Duchi, Hazan & Singer 2011, JMLR 12, Figure 1 (diagonal matrices).
    """
    check_non_negative(initial_accumulator_value=initial_accumulator_value, eps=eps)

    def init(params):
        return ScaleByRssState(second_moment_like(params, initial_accumulator_value))

    def update(updates, state, params=None, **extra):
        def leaf(g, total, *, eps):  # g, total: one leaf, same shape
            # both are capped, and not their sum: an addition comes last (see `after`)
            most = jnp.finfo(total.dtype).max / 2
            total = jnp.minimum(total, most) + jnp.minimum(abs_sq(g), most)
            safe = jnp.where(total > 0, total, 1)
            root = jnp.sqrt(safe + eps) if eps_in_sqrt else jnp.sqrt(safe) + eps
            return jnp.where(total == 0, 0, g / root), total

        updates, total = map_leaves(
            leaf, updates, state.sum_of_squares, outputs=2, eps=eps
        )
        return updates, ScaleByRssState(total)

    return init, update


@transformation
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: Numeric = 0.1,
    eps: Numeric = 1e-7,
    *,
    eps_in_sqrt: bool = True,
):
    """Descend with AdaGrad's direction: `scale_by_rss`, then the learning rate.

    `p ← p − learning_rate·u`, with `u` of `scale_by_rss`

    Args:
      learning_rate: a number, or a schedule of the number of updates made.
      initial_accumulator_value, eps, eps_in_sqrt: as in `scale_by_rss`.

    Source: Duchi, Hazan & Singer 2011, JMLR 12, Figure 1.
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
    )
