"""Sum gradients over several calls and update once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    ArgumentError,
    Count,
    DTypeLike,
    Inner,
    Link,
    Measured,
    PerParam,
    as_transformation,
    check_count,
    dtype_of,
    hide,
    map_leaves,
    reveal,
    safe_increment,
    transformation,
    varies_over,
    zero_count,
    zeros_like,
)

#: `(updates, gradient_step, params) -> (skip, report)`, for `accumulate`.
ShouldSkipUpdateFunction: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any]]


class MultiStepsState(NamedTuple):
    """The state of `accumulate`.

    Attributes:
      mini_step: calls since the last update of the inner transformation.
      gradient_step: updates of the inner transformation.
      inner_opt_state: its state, untouched between updates.
      acc_grads: the sum of the gradients since the last update. Where the inner
        transformation averages over devices, each device has a sum of its own.
      skip_state: what the function that skips reported of the last call.
    """

    mini_step: Count
    gradient_step: Count
    inner_opt_state: Inner
    acc_grads: PerParam
    skip_state: Measured = ()


@transformation(stage="accumulate")
def accumulate(
    inner: Link,
    every: int | Callable[[Any], Any],
    *,
    mean: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    skip: ShouldSkipUpdateFunction | None = None,
):
    """Update with the mean of `every` gradients, and with nothing in between.

    `acc ← acc + g`; at every k-th call `u ← inner(acc/k)`, `acc ← 0`, else `u ← 0`

    The inner transformation runs at every k-th call only, under `lax.cond`: between
    them its state, its counts and its cost stand still. A NaN stays in its window.

    Args:
      inner: what turns the accumulated gradient into an update.
      every: calls per update, 1 or more, or a schedule of the updates made so far.
      mean: whether to take the mean of the gradients; else their sum.
      accumulator_dtype: dtype of the sum; by default the parameters', but at least
        float32.
      skip: `(updates, gradient_step, params) -> (skip, report)`, a scalar bool and a
        pytree of arrays. A call that it skips counts for nothing and changes nothing
        but `skip_state`, which holds the report. See `skip_not_finite`.

    Raises:
      ArgumentError: if `every` is no schedule and no integer of 1 or more, `skip`
        returns no scalar bool, or `inner` is such as `lookahead`, which goes outside.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every=2)
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update({"w": jnp.full(1, g)}, state)
      ...     print(updates["w"].tolist())
      [0.0]
      [-2.0]

    Source: Ott et al. 2018, arXiv:1806.00187, section 3 (cumulative updates).
    """
    inner = as_transformation(inner)
    if inner.traits.form == "pairs":
        raise ArgumentError(
            f"{inner.name} steps on pairs of parameters, and gradients are summed for "
            f"single ones. Put accumulate into {inner.name}."
        )
    if not callable(every):
        check_count(1, every=every)

    def judge(updates, gradient_step, params):
        if skip is None:
            return jnp.zeros((), bool), ()
        verdict, report = skip(updates, gradient_step, params)
        if jnp.shape(verdict) or jnp.result_type(verdict) != jnp.bool_:
            raise ArgumentError(
                "skip must return a scalar bool first, got "
                f"{jnp.result_type(verdict)}{list(jnp.shape(verdict))}."
            )
        return jnp.asarray(verdict), report

    def init(params):
        return MultiStepsState(
            mini_step=zero_count(),
            gradient_step=zero_count(),
            inner_opt_state=inner.init(params),
            acc_grads=zeros_like(params, accumulator_dtype, wide=True),
            skip_state=judge(zeros_like(params), zero_count(), params)[1],
        )

    def update(updates, state, params=None, **extra):
        calls = every(state.gradient_step) if callable(every) else every
        calls = jnp.asarray(calls, jnp.int32)

        skipped, report = judge(updates, state.gradient_step, params)

        mini_step = safe_increment(state.mini_step)
        mini_step = jnp.where(skipped, state.mini_step, mini_step)
        divisor = calls if mean else 1

        def emit():
            def gather(g, acc, *, divisor):  # g, acc: one leaf, same shape
                return (acc + g) / divisor

            gathered = map_leaves(gather, updates, state.acc_grads, divisor=divisor)
            new, inner_state = inner.update(
                gathered, state.inner_opt_state, params, **extra
            )
            steps = safe_increment(state.gradient_step)
            zero = jnp.zeros_like(mini_step)
            return hide(moving, new), (zero, steps, inner_state), zero

        def wait():
            kept = (mini_step, state.gradient_step, state.inner_opt_state)
            return (
                _zeros_of(emit, shown, (state, params)),
                kept,
                jnp.ones_like(mini_step),
            )

        # float0 belongs to no branch: it goes around the condition
        moving = jax.tree.map(lambda g: dtype_of(g) != jax.dtypes.float0, updates)
        shown = hide(moving, updates)
        ready = (mini_step >= calls) & ~skipped
        new, (mini_step, steps, inner_state), keep = lax.cond(ready, emit, wait)

        def add(g, acc, *, take, keep):
            # `keep` comes out of the condition: the sum is written after it is read
            return g, jnp.where(keep > 0, jnp.where(take > 0, acc + g, acc), 0)

        _, acc = map_leaves(
            add, updates, state.acc_grads, outputs=2, take=~skipped, keep=keep
        )
        state = MultiStepsState(mini_step, steps, inner_state, acc, report)
        return reveal(moving, new, updates), state

    return init, update


def _zeros_of(emit: Callable[[], Any], updates: Any, others: Any) -> Any:
    """Return zeros of the types of the updates that `emit` makes of `updates`.

    They differ only in a `shard_map` that knows what varies between devices: there a
    link that averages turns what varies into what does not.
    """
    if any(map(varies_over, jax.tree.leaves((updates, others)))):
        updates = jax.eval_shape(emit)[0]
    return zeros_like(updates)
