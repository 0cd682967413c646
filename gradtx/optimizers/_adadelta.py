"""Adadelta: steps in the units of the parameters, without a learning rate of their own."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    abs_sq,
    chain,
    check_decay,
    check_non_negative,
    map_leaves,
    second_moment_like,
    transformation,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class ScaleByAdaDeltaState(NamedTuple):
    """The state of `scale_by_adadelta`.

    Attributes:
      e_g: running mean of the squared gradients.
      e_x: running mean of the squared updates.
    """

    e_g: PerParam
    e_x: PerParam


@transformation(stage="precondition")
def scale_by_adadelta(rho: Numeric = 0.9, eps: Numeric = 1e-6):
    """Scale updates by the ratio of two roots: of past updates and of gradients.

    `e_g ← rho·e_g + (1 − rho)·|g|²`; `u ← √(e_x + eps) / √(e_g + eps)·g`;
    `e_x ← rho·e_x + (1 − rho)·|u|²`

    Args:
      rho: the share of the means that one step keeps, in [0, 1).
      eps: added under both roots.

    Raises:
      ArgumentError: if `rho` lies outside [0, 1) or `eps` is negative.

    Source: Zeiler 2012, arXiv:1212.5701, Algorithm 1.
    """
    check_decay(rho=rho)
    check_non_negative(eps=eps)

    def init(params):
        return ScaleByAdaDeltaState(
            second_moment_like(params), second_moment_like(params)
        )

    def update(updates, state, params=None, **extra):
        def leaf(g, e_g, e_x, *, rho, eps):  # g, e_g, e_x: one leaf, same shape
            # of a size whose square is in range
            limit = float(jnp.finfo(e_g.dtype).max / 2) ** 0.5
            size = jnp.minimum(jnp.abs(g), limit)
            e_g = rho * e_g + (1 - rho) * (size * size)
            square = abs_sq(jnp.sqrt(e_x + eps) / jnp.sqrt(e_g + eps) * size)
            e_x = rho * e_x + (1 - rho) * square
            # the same quotient of roots, from the new e_x (see `after`): e_x + eps is
            # now (e_x + rho·eps)·(e_g + eps) over this
            below = rho * (e_g + eps) + (1 - rho) * size * size
            below = jnp.where(below > 0, below, 1)
            return jnp.sqrt(e_x + rho * eps) / jnp.sqrt(below) * g, e_g, e_x

        updates, e_g, e_x = map_leaves(
            leaf, updates, state.e_g, state.e_x, outputs=3, rho=rho, eps=eps
        )
        return updates, ScaleByAdaDeltaState(e_g, e_x)

    return init, update


@transformation
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: Numeric = 0.9,
    eps: Numeric = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
):
    """Descend with Adadelta's step; a weight decay joins the gradient (L2).

    `p ← p − learning_rate·u`, with `u` of `scale_by_adadelta` for `g + weight_decay·p`

    Args:
      learning_rate: a number, or a schedule of the number of updates made. `None`
        means 1, the method of the paper.
      rho, eps: as in `scale_by_adadelta`.
      weight_decay, weight_decay_mask: as in `add_decayed_weights`.

    Source: Zeiler 2012, arXiv:1212.5701, Algorithm 1.

    Differs from optax: without a learning rate it descends; there it ascends.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
