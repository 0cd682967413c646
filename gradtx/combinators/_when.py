"""Run a transformation only while a condition holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from gradtx.core import (
    Count,
    Inner,
    Link,
    as_transformation,
    safe_increment,
    transformation,
    update_if,
    zero_count,
)

#: `(step, **extra) -> bool`: whether to run at `step`, counted from 0.
ConditionFn: TypeAlias = Callable[..., Any]


class ConditionallyTransformState(NamedTuple):
    """The state of `conditionally_transform`.

    Attributes:
      inner_state: the state of the wrapped transformation, untouched while it rests.
      step: calls made so far, those at rest included.
    """

    inner_state: Inner
    step: Count


class ConditionallyMaskState(NamedTuple):
    """The state of `conditionally_mask`.

    Attributes:
      step: calls made so far, those at rest included.
      inner_state: the state of the wrapped transformation, untouched while it rests.
    """

    step: Count
    inner_state: Inner


@transformation
def conditionally_transform(
    inner: Link,
    should_transform_fn: ConditionFn,
    forward_extra_args: bool = False,
):
    """Apply `inner` while a condition holds, and pass updates through otherwise.

    `u ← inner(g)` where `should_transform_fn(step)`, else `u ← g`

    At rest `inner` is not computed, and its state stands still.

    Args:
      inner: what to apply.
      should_transform_fn: a function from the calls made so far, counted from 0, to a
        bool or a number, which may be traced; other than 0 means yes. A schedule will
        do, and can be written down.
      forward_extra_args: whether the function gets the extra arguments of `update`
        too, by name.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.conditionally_transform(gradtx.scale(2.0), lambda step: step < 1)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates.tolist())
      [2.0]
      [1.0]

    Source: a branch around a link, as in optax, which names it.
    """
    inner = as_transformation(inner)

    def init(params):
        return ConditionallyTransformState(inner.init(params), zero_count())

    def update(updates, state, params=None, **extra):
        known = extra if forward_extra_args else {}
        condition = should_transform_fn(state.step, **known)
        before = state.inner_state
        updates, after = update_if(condition, inner, updates, before, params, extra)
        return updates, ConditionallyTransformState(after, safe_increment(state.step))

    return init, update


@transformation
def conditionally_mask(
    inner: Link,
    should_transform_fn: ConditionFn,
    forward_extra_args: bool = False,
):
    """Apply `inner` while a condition holds, and update nothing otherwise.

    `u ← inner(g)` where `should_transform_fn(step)`, else `u ← 0`

    At rest `inner` is not computed, and its state stands still.

    Args:
      inner: what to apply.
      should_transform_fn, forward_extra_args: as in `conditionally_transform`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.conditionally_mask(gradtx.sgd(1.0), lambda step: step % 2 == 0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates.tolist())
      [-1.0]
      [0.0]

    Source: a branch around a link, as in optax, which names it.
    """
    inner = as_transformation(inner)

    def init(params):
        return ConditionallyMaskState(zero_count(), inner.init(params))

    def update(updates, state, params=None, **extra):
        known = extra if forward_extra_args else {}
        condition = should_transform_fn(state.step, **known)
        before = state.inner_state
        updates, after = update_if(
            condition, inner, updates, before, params, extra, else_zero=True
        )
        return updates, ConditionallyMaskState(safe_increment(state.step), after)

    return init, update
