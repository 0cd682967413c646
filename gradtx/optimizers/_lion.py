"""Lion: steps of one size, in the direction of the sign of an interpolation."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    DTypeLike,
    MaskOrFn,
    Numeric,
    PerParam,
    ScalarOrSchedule,
    chain,
    check_decay,
    is_static,
    map_leaves,
    safe_increment,
    transformation,
    zero_count,
    zeros_like,
)
from gradtx.transforms import add_decayed_weights, scale_by_learning_rate


class ScaleByLionState(NamedTuple):
    """The state of `scale_by_lion`: updates made so far, and the momentum."""

    count: Count
    mu: PerParam


_MODES = {
    "hard": lambda x, beta: jnp.sign(x),
    "smooth": lambda x, beta: jnp.tanh(beta * x),
    "refined": lambda x, beta: jnp.where(jnp.abs(x) < 1, x, jnp.sign(x)),
}


@transformation(stage="precondition", scale_free=True)
def scale_by_lion(
    b1: Numeric = 0.9,
    b2: Numeric = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Numeric = 1.0,
):
    """Take the sign of an interpolation between the update and its momentum.

    `u ← sign(b1·mu + (1 − b1)·g)`, then `mu ← b2·mu + (1 − b2)·g`

    Args:
      b1: weight of the momentum in the update, in [0, 1).
      b2: the share of the momentum that one step keeps, in [0, 1).
      mu_dtype: dtype of the momentum; by default the parameters'.
      mode: "hard" for the sign, "smooth" for `tanh(smooth_beta·x)`, "refined" for x
        itself where it is below 1.
      smooth_beta: steepness of the smooth form.

    Raises:
      ArgumentError: if a decay lies outside [0, 1) or the mode is unknown.

    Source: Chen et al. 2023, arXiv:2302.06675, Algorithm 2.
    """
    check_decay(b1=b1, b2=b2)
    if mode not in _MODES:
        raise ArgumentError(f"mode must be one of {list(_MODES)}, got {mode!r}.")

    def init(params):
        return ScaleByLionState(zero_count(), zeros_like(params, mu_dtype))

    def update(updates, state, params=None, **extra):
        def leaf(g, mu, *, b1, b2, beta):  # g, mu: one leaf, same shape
            new = b2 * mu + (1 - b2) * g
            if is_static(b1) and is_static(b2) and b1 <= b2 != 0:
                # the same point between `mu` and `g`, from the new `mu`: see `after`
                mu, b1 = new, b1 / b2
            return _MODES[mode](b1 * mu + (1 - b1) * g, beta), new

        updates, mu = map_leaves(
            leaf, updates, state.mu, outputs=2, b1=b1, b2=b2, beta=smooth_beta
        )
        return updates, ScaleByLionState(safe_increment(state.count), mu)

    return init, update


@transformation(scale_free=True)
def lion(
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    b2: Numeric = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: MaskOrFn | None = None,
):
    """Descend with Lion's direction and decoupled weight decay.

    `p ← p − learning_rate·(u + weight_decay·p)`, with `u` of `scale_by_lion`

    Args:
      learning_rate: a number, or a schedule of the number of updates made; 3 to 10
        times smaller than Adam's.
      b1, b2, mu_dtype: as in `scale_by_lion`.
      weight_decay, mask: as in `add_decayed_weights`; the decay 3 to 10 times larger
        than AdamW's.

    Source: Chen et al. 2023, arXiv:2302.06675, Algorithm 2 and section 5.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
