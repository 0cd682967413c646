"""Add a multiple of the parameters to the updates: weight decay."""

from __future__ import annotations

from typing import NamedTuple

from gradtx.core import (
    Count,
    EmptyState,
    MaskOrFn,
    ScalarOrSchedule,
    check_non_negative,
    hide,
    map_leaves,
    resolve_mask,
    reveal,
    safe_increment,
    transformation,
    zero_count,
)


class WeightDecaySchedule(NamedTuple):
    """The state of `add_decayed_weights` under a schedule: updates made so far."""

    count: Count


#: optax's name for the state of `add_decayed_weights` without a schedule.
AddDecayedWeightsState = EmptyState


@transformation(stage="decay", needs={"params"})
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: MaskOrFn | None = None
):
    """Add the parameters, times a number, to the updates.

    `u ← g + weight_decay(t)·p`, with t = 0, 1, …

    After the preconditioner and before the learning rate this is decoupled weight
    decay (AdamW); before the preconditioner it is an L2 penalty.

    Args:
      weight_decay: the factor, 0 or more, or a schedule of the number of updates.
      mask: which leaves decay: a tree of bools like the parameters or a prefix of it,
        a function from the parameters to such a tree, or a selector such as
        `ndim_at_least(2)`. By default all.

    Raises:
      ArgumentError: if `weight_decay` is negative, or the mask does not fit.
      MissingArgumentError: if `update` gets no parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
      >>> tx = gradtx.add_decayed_weights(0.5, gradtx.path_matches("kernel"))
      >>> tx.update(gradtx.tree.zeros_like(params), tx.init(params), params)[0]
      {'bias': Array([0., 0.], dtype=float32), 'kernel': Array([[0.5, 0.5]], dtype=float32)}

    Source: Loshchilov & Hutter 2017, arXiv:1711.05101, Algorithm 2, line 12.
    """
    check_non_negative(weight_decay=weight_decay)

    def init(params):
        return WeightDecaySchedule(zero_count()) if scheduled else EmptyState()

    def update(updates, state, params=None, **extra):
        factor = weight_decay(state.count) if callable(weight_decay) else weight_decay
        flags = None if mask is None else resolve_mask(mask, params)
        inside = updates if flags is None else hide(flags, updates)
        shown = params if flags is None else hide(flags, params)
        decayed = map_leaves(_decayed, inside, shown, weight_decay=factor)
        updates = decayed if flags is None else reveal(flags, decayed, updates)
        if scheduled:
            state = WeightDecaySchedule(safe_increment(state.count))
        return updates, state

    scheduled = callable(weight_decay)
    return init, update


def _decayed(g, p, *, weight_decay):  # g, p: one leaf, same shape
    if isinstance(weight_decay, (int, float)) and weight_decay == 0:
        return g  # without reading p
    return g + weight_decay * p
