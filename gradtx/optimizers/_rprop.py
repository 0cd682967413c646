"""Rprop: each element has a step of its own, which grows while its sign stays."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Numeric,
    PerParam,
    chain,
    check_positive,
    full_like,
    map_leaves,
    require_real,
    transformation,
    zeros_like,
)
from gradtx.transforms import scale_by_learning_rate


class ScaleByRpropState(NamedTuple):
    """The state of `scale_by_rprop`.

    Attributes:
      step_sizes: the step of each element.
      prev_updates: the last updates, 0 where the sign had turned.
    """

    step_sizes: PerParam
    prev_updates: PerParam


@transformation(stage="precondition", complex=False, scale_free=True)
def scale_by_rprop(
    learning_rate: Numeric,
    eta_minus: Numeric = 0.5,
    eta_plus: Numeric = 1.2,
    min_step_size: Numeric = 1e-6,
    max_step_size: Numeric = 50.0,
):
    """Replace updates by their sign times a step that adapts to changes of sign.

    `s ← sign(g)·sign(u_before)`; `step ← step·eta_plus` where `s > 0`, `step·eta_minus`
    where `s < 0`, within bounds; `u ← step·sign(g)`, 0 where `s < 0`

    Args:
      learning_rate: the step before the first update, above 0; a number.
      eta_minus: the factor where the sign has turned, in (0, 1).
      eta_plus: the factor where it has stayed, above 1.
      min_step_size: the least step.
      max_step_size: the largest step.

    Raises:
      ArgumentError: if an argument is not positive, or the learning rate is a schedule.
      DtypeError: if a gradient is complex, and has no sign.

    Source: Riedmiller & Braun 1993, "A Direct Adaptive Method for Faster
    Backpropagation Learning: The RPROP Algorithm"; without weight backtracking, as in
    torch.optim.Rprop.

    Differs from optax: there each update is the one that was due a step before.
    """
    if callable(learning_rate):
        raise ArgumentError(
            "learning_rate is the step before the first update, a number; got "
            f"{learning_rate!r}. For a schedule, put scale_by_schedule behind."
        )
    check_positive(
        learning_rate=learning_rate,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_step_size=min_step_size,
        max_step_size=max_step_size,
    )

    def init(params):
        return ScaleByRpropState(full_like(params, learning_rate), zeros_like(params))

    def update(updates, state, params=None, **extra):
        def leaf(g, step, before, *, minus, plus, least, most):
            require_real(g)
            same = jnp.sign(g) * jnp.sign(before)
            moved = jnp.clip(step * jnp.where(same > 0, plus, minus), least, most)
            step = jnp.where(same == 0, step, moved)
            u = jnp.where(same < 0, 0, step * jnp.sign(g))
            return u, step, u

        updates, step_sizes, prev = map_leaves(
            leaf,
            updates,
            state.step_sizes,
            state.prev_updates,
            outputs=3,
            minus=eta_minus,
            plus=eta_plus,
            least=min_step_size,
            most=max_step_size,
        )
        return updates, ScaleByRpropState(step_sizes, prev)

    return init, update


@transformation(scale_free=True)
def rprop(
    learning_rate: Numeric,
    eta_minus: Numeric = 0.5,
    eta_plus: Numeric = 1.2,
    min_step_size: Numeric = 1e-6,
    max_step_size: Numeric = 50.0,
):
    """Descend with Rprop's steps.

    `p ← p − u`, with `u` of `scale_by_rprop`

    Args:
      learning_rate, eta_minus, eta_plus, min_step_size, max_step_size: as in
        `scale_by_rprop`.

    Source: Riedmiller & Braun 1993, as in `scale_by_rprop`.

    Differs from optax: as `scale_by_rprop` does.
    """
    return chain(
        scale_by_rprop(
            learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
        ),
        scale_by_learning_rate(1.0),
    )
