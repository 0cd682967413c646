"""COCOB: bet on each coordinate, with no learning rate to tune."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    capped,
    chain,
    check_positive,
    copies,
    full_like,
    map_leaves,
    require_real,
    transformation,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class COCOBState(NamedTuple):
    """The state of `scale_by_cocob`; all sums in float32 or wider.

    Attributes:
      init_particles: the parameters at the start.
      cumulative_gradients: minus the sum of the gradients.
      scale: the largest magnitude of a gradient so far, `eps` or more.
      subgradients: the sum of the magnitudes.
      reward: what the bets have won, 0 or more.
    """

    init_particles: PerParam
    cumulative_gradients: PerParam
    scale: PerParam
    subgradients: PerParam
    reward: PerParam


@transformation(
    stage="rate", negates=True, needs={"params"}, complex=False, scale_free=True
)
def scale_by_cocob(alpha: Numeric = 100.0, eps: Numeric = 1e-8):
    """Move to where a coin-betting strategy stands.

    `L ← max(L, |g|)`; `G ← G + |g|`; `R ← max(R − g·(p − p_0), 0)`; `C ← C − g`;
    `u ← p_0 − p + C/max(G + L, alpha·L)·(1 + R/L)`

    The updates are final: it must be the last link of a chain.

    Args:
      alpha: bounds the first bets, above 0.
      eps: where `L` starts, above 0.

    Raises:
      ArgumentError: if an argument is not positive.
      DtypeError: if a gradient is complex.
      MissingArgumentError: if `update` gets no parameters.

    Source: Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2 (COCOB-Backprop).
    """
    check_positive(alpha=alpha, eps=eps)

    def init(params):
        wide = lambda value: full_like(params, value, wide=True)
        return COCOBState(copies(params), wide(0), wide(eps), wide(0), wide(0))

    def update(updates, state, params=None, **extra):
        def leaf(g, c, top, total, reward, start, p, *, alpha):
            g = capped(require_real(g))
            top = jnp.maximum(top, jnp.abs(g))
            total = total + jnp.abs(g)
            # max(R − x, 0), but a difference comes last (see `after`)
            reward = reward - jnp.minimum(g * (p - start), reward)
            c = c - g
            bet = c / jnp.maximum(total + top, alpha * top)
            return start - p + bet * (1 + reward / top), c, top, total, reward

        updates, *sums = map_leaves(
            leaf,
            updates,
            *state[1:],
            state.init_particles,
            params,
            outputs=5,
            alpha=alpha,
        )
        return updates, COCOBState(state.init_particles, *sums)

    return init, update


@transformation(scale_free=True)
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: Numeric = 100.0,
    eps: Numeric = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
):
    """Descend by betting: `scale_by_cocob` of scaled gradients.

    `p ← p + u` with `u` of `scale_by_cocob` for `learning_rate·(g + weight_decay·p)`

    Args:
      learning_rate: a factor of the gradient; a number, or a schedule.
      alpha, eps: as in `scale_by_cocob`.
      weight_decay, mask: as in `add_decayed_weights`.

    Source: Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2 (COCOB-Backprop).
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
