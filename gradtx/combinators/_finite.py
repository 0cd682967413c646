"""Leave out updates that are not finite."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Count,
    Flag,
    Inner,
    Link,
    Reading,
    all_max,
    as_transformation,
    bits,
    check_axes,
    check_count,
    safe_increment,
    transformation,
    update_if,
    varying_axes,
    varying_like,
    zero_count,
    zero_norm,
)


class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`.

    Attributes:
      notfinite_count: gradients in a row that were not finite and were left out. An
        applied update sets it back to 0.
      last_finite: whether the last gradient was finite.
      total_notfinite: gradients that were not finite, since `init`.
      inner_state: the state of the wrapped transformation, which never sees what is
        left out.
    """

    notfinite_count: Count
    last_finite: Flag
    total_notfinite: Annotated[Count, Reading("skipped_updates")]
    inner_state: Inner


@transformation(stage="guard", reach="tree")
def apply_if_finite(
    inner: Link,
    max_consecutive_errors: int,
    *,
    axis_name: AxisName | None = None,
):
    """Apply `inner` to finite gradients only, and update nothing where one is not.

    `u ← inner(g)` where all of `g` is finite, else `u ← 0`

    A gradient left out does not reach `inner`: its moments and counts stand still.
    After `max_consecutive_errors` of them in a row, one gradient is applied as it is,
    NaN and all, so that a broken run shows; counting then starts anew. To leave out
    every one, give a number larger than the run is long. `guarded` never applies one,
    and looks at updates and states too.

    Args:
      inner: what to apply.
      max_consecutive_errors: how many gradients in a row may be left out, 0 or more.
      axis_name: mapped axes whose devices decide together: a NaN on one device leaves
        the gradient out on all.

    Raises:
      ArgumentError: if `max_consecutive_errors` is no integer of 0 or more.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.apply_if_finite(gradtx.sgd(1.0), max_consecutive_errors=5)
      >>> updates, state = tx.update(jnp.array([jnp.nan]), tx.init(jnp.zeros(1)))
      >>> updates.tolist(), int(state.notfinite_count)
      ([0.0], 1)

    Source: Micikevicius et al. 2017, arXiv:1710.03740, section 3.2 (skipped updates).

    Differs from optax: after an applied error the count of errors starts anew; optax
    applies every later one too.
    """
    inner = as_transformation(inner)
    check_count(0, max_consecutive_errors=max_consecutive_errors)

    def init(params):
        state = ApplyIfFiniteState(
            notfinite_count=zero_count(),
            last_finite=jnp.array(True),
            total_notfinite=zero_count(),
            inner_state=inner.init(params),
        )
        # in a shard_map, what each device decides for itself differs between them
        own = zero_norm(params, axis_name=axis_name)
        return jax.tree.map(lambda x: varying_like(own, x), state)

    def update(updates, state, params=None, **extra):
        finite = _all_finite(updates, axis_name)
        errors = jnp.where(finite, 0, safe_increment(state.notfinite_count))
        apply = finite | (errors > max_consecutive_errors)
        updates, inner_state = update_if(
            apply,
            inner,
            updates,
            state.inner_state,
            params,
            extra,
            else_zero=True,
        )
        total = state.total_notfinite
        return updates, ApplyIfFiniteState(
            notfinite_count=jnp.where(apply, 0, errors),
            last_finite=finite,
            total_notfinite=jnp.where(finite, total, safe_increment(total)),
            inner_state=inner_state,
        )

    return init, update


def _all_finite(updates: Any, axis_name: AxisName | None) -> jax.Array:
    check_axes(axis_name)
    bad = jnp.zeros((), jnp.int32)
    for g in jax.tree.leaves(updates):
        if bits(g):
            found = jnp.any(~jnp.isfinite(g)).astype(jnp.int32)
            axes = varying_axes(found, axis_name)
            bad = jnp.maximum(bad, all_max(found, axes or None))
    return bad == 0
