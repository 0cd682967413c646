"""Run a transformation only while a condition holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Count,
    GradientTransformation,
    Inner,
    Link,
    as_transformation,
    bits,
    cast,
    dtype_of,
    hide,
    reveal,
    safe_increment,
    transformation,
    varying_like,
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


def update_if(
    condition: Any,
    inner: GradientTransformation,
    updates: Any,
    state: Any,
    params: Any,
    extra: dict[str, Any],
    *,
    else_zero: bool = False,
) -> tuple[Any, Any]:
    """Return what `inner` makes of the updates and its state where a condition holds.

    Both branches give updates of the gradients' dtypes and states of the dtypes that
    they had, also where `inner` is a foreign link whose types drift.

    Args:
      condition: a bool or a number, other than 0 for yes.
      inner: what to apply.
      updates, state, params, extra: what its `update` gets.
      else_zero: whether updates are zero else; by default they are the gradients.

    Raises:
      ArgumentError: if gradients per example would be passed on.
    """
    # float0 belongs to no branch: it goes around the condition
    moving = jax.tree.map(lambda g: dtype_of(g) != jax.dtypes.float0, updates)
    form = inner.traits.form
    if form == "examples" and not else_zero:
        raise ArgumentError(
            f"gradients per example cannot be passed on, as {inner.name} makes one of "
            "them. Put it in front of the condition."
        )

    def each(change: Callable[[Any], Any], made: Any) -> Any:
        """Change updates, or both sets of a pair."""
        return type(made)(*map(change, made)) if form == "pairs" else change(made)

    def typed() -> Any:
        """Return the types of what comes out, in the form that `inner` gives it."""
        if form == "examples":
            rows = jax.tree.map(lambda g: g[0] if bits(g) else g, updates)
            return hide(moving, rows)
        if form == "pairs":
            still = hide(moving, jax.tree.map(jnp.zeros_like, params.slow))
            return type(params)(hide(moving, updates), still)
        return hide(moving, updates)

    shown = typed()

    def run() -> tuple[Any, Any]:
        made, after = inner.update(updates, state, params, **extra)
        made = each(lambda tree: hide(moving, tree), made)
        return varying_like((shown, state), _typed_like((shown, state), (made, after)))

    def rest() -> tuple[Any, Any]:
        kept = jax.tree.map(jnp.zeros_like, shown) if else_zero else shown
        kept = jax.tree.map(jnp.asarray, (kept, state))
        if jax.sharding.get_abstract_mesh().manual_axes:
            kept = varying_like(jax.eval_shape(run), kept)
        return kept

    made, after = lax.cond(jnp.asarray(condition).astype(bool), run, rest)
    return each(lambda tree: reveal(moving, tree, updates), made), after


def _typed_like(old: Any, new: Any) -> Any:
    """Return `new` in the dtypes of `old`, where they have one structure."""
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new
    return jax.tree.map(_typed, old, new)


def _typed(old: Any, new: Any) -> Any:
    dtype = dtype_of(old)
    if jnp.issubdtype(dtype, jax.dtypes.extended) or dtype_of(new) == dtype:
        return jnp.asarray(new)
    return cast(new, dtype)
