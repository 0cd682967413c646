"""Scale updates by a number, a schedule or the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    EmptyState,
    Numeric,
    Scalar,
    ScalarOrSchedule,
    Traits,
    init_empty_state,
    is_static,
    map_leaves,
    safe_increment,
    transformation,
    value_at,
    zero_count,
)


class ScaleByScheduleState(NamedTuple):
    """The state of a link that scales by a number which may change with the step.

    Attributes:
      count: updates made so far.
      step_size: the number in use: at the next update after `init`, at the last one
        after `update`. Without the sign of `scale_by_learning_rate`. A state made by
        hand may leave it out: `update` sets it.
    """

    count: Count
    step_size: Scalar = None  # type: ignore[assignment]


#: optax's name for the state of `scale`.
ScaleState = EmptyState


def _scale_traits(traits: Traits, given: Mapping[str, Any]) -> Traits:
    size = given["step_size"]
    if not (is_static(size) and size < 0):
        return traits
    # what only changes the sign, to ascend for instance, is no learning rate
    return traits.replace(negates=True, stage="" if size == -1 else "rate")


@transformation(adjust=_scale_traits)
def scale(step_size: Numeric):
    """Multiply updates by a number.

    `u ← step_size·g`

    Args:
      step_size: the factor, of any sign.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale(-0.5)
      >>> tx.update({"w": jnp.array([2.0, 4.0])}, tx.init(None))[0]["w"].tolist()
      [-1.0, -2.0]

    Source: Robbins & Monro 1951, the step of stochastic approximation.
    """

    def update(updates, state, params=None, **extra):
        return map_leaves(_scaled, updates, s=step_size), state

    return init_empty_state, update


@transformation(stage="rate")
def scale_by_schedule(step_size_fn: Callable[[Numeric], Numeric]):
    """Multiply updates by a function of the number of updates made.

    `u ← step_size_fn(t)·g`, with t = 0, 1, …

    Args:
      step_size_fn: a schedule, or any function from the step to a number.

    Raises:
      ArgumentError: if `step_size_fn` is not callable.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 2))
      >>> state = tx.init({"w": jnp.ones(1)})
      >>> for _ in range(2):
      ...     updates, state = tx.update({"w": jnp.ones(1)}, state)
      >>> updates["w"].tolist(), int(state.count)
      ([0.5], 2)

    Source: Robbins & Monro 1951, section 1: step sizes that fall with the step.
    """
    if not callable(step_size_fn):
        raise ArgumentError(
            f"step_size_fn must be a function of the step, got {step_size_fn!r}. "
            "For a constant, use scale."
        )
    return _scaling(step_size_fn, 1)


@transformation(
    stage="rate",
    adjust=lambda traits, given: traits.replace(negates=given["flip_sign"]),
)
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
):
    """Multiply updates by minus the learning rate: the one minus sign of a chain.

    `u ← −learning_rate(t)·g`, with t = 0, 1, …

    Args:
      learning_rate: a number, or a schedule of the number of updates made. `None`
        means 1.
      flip_sign: whether to change the sign. Without it the chain ascends.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_learning_rate(0.1)
      >>> state = tx.init({"w": jnp.ones(1)})
      >>> float(state.step_size)  # the learning rate in use
      0.10000000149011612

    Source: Cauchy 1847, the method of steepest descent.

    Differs from optax: `None` descends with step 1; there it leaves the sign alone.
    """
    rate = 1.0 if learning_rate is None else learning_rate
    return _scaling(rate, -1 if flip_sign else 1)


def _scaling(size: ScalarOrSchedule, sign: int) -> tuple[Any, Any]:
    def init(params):
        count = zero_count()
        return ScaleByScheduleState(count, _record(value_at(size, count)))

    def update(updates, state, params=None, **extra):
        now = value_at(size, state.count)
        exact = size if isinstance(size, (int, float)) else now
        updates = map_leaves(_scaled, updates, s=sign * exact)
        count = safe_increment(state.count)
        return updates, ScaleByScheduleState(count, _record(now))

    return init, update


def _record(number):
    # a buffer of its own: the caller may hold the learning rate as an array
    return jnp.array(number, jnp.float32, copy=True)


def _scaled(g, *, s):
    return s * g
