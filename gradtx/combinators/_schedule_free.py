"""Schedule-free learning: average the iterates in place of a falling rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    DTypeLike,
    Inner,
    Link,
    Numeric,
    PerParam,
    Scalar,
    ScalarOrSchedule,
    as_transformation,
    bits,
    cast,
    check_non_negative,
    copies,
    is_static,
    map_leaves,
    safe_increment,
    scalar_like,
    transformation,
    value_at,
    zero_count,
)


class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`.

    Attributes:
      b1: the share of the average in the parameters.
      weight_sum: the sum of the weights of the iterates, in float32 or wider.
      step_count: updates made so far, plus 1.
      max_lr: the largest learning rate so far.
      base_optimizer_state: the state of the wrapped optimizer.
      z: the iterates of that optimizer.
    """

    b1: Scalar
    weight_sum: Scalar
    step_count: Count
    max_lr: Scalar
    base_optimizer_state: Inner
    z: PerParam


@transformation(
    needs={"params"},
    exempt={
        "P12 change": "a constant learning rate gives all iterates the same weight; that "
        "of the base optimizer is another argument"
    },
)
def schedule_free(
    base_optimizer: Link,
    learning_rate: ScalarOrSchedule,
    b1: Numeric = 0.9,
    weight_lr_power: Numeric = 2.0,
    state_dtype: DTypeLike | None = None,
):
    """Take gradients between an optimizer's iterates and their average.

    `z ← z + u(∇f(y))`; `x ← (1 − c)·x + c·z`, `c = w/Σw`,
    `w = (largest learning rate so far)^weight_lr_power`; `y = (1 − b1)·z + b1·x`

    The parameters are `y`; evaluate at `x`, by `schedule_free_eval_params`.

    `z` and `y` both read `u`. Where it holds roots or quotients, XLA keeps it in memory
    for them, 4 bytes per parameter on a CPU, unless `update` gets `again=`, a function
    `(updates, new base state, params) -> u/2` that computes it in another way.

    Args:
      base_optimizer: what moves `z`, without momentum and with the same learning rate.
      learning_rate: a number, or a schedule that warms up and does not fall.
      b1: the share of the average in `y`, in (0, 1].
      weight_lr_power: the power of the learning rate in the weights.
      state_dtype: dtype of `z`; by default the parameters'.

    Raises:
      ArgumentError: if an argument is outside its range.
      MissingArgumentError: if `update` gets no parameters.

    Source: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1, and the authors' code.

    Differs from optax: the weights see the learning rate of the same step as the base
    optimizer, not that of the next; their sum is float32 whatever the parameters are.
    """
    base_optimizer = as_transformation(base_optimizer)
    check_non_negative(weight_lr_power=weight_lr_power)
    if is_static(b1) and not 0 < b1 <= 1:
        raise ArgumentError(f"b1 must lie in (0, 1], got {b1!r}.")

    def init(params):
        return ScheduleFreeState(
            b1=scalar_like(params, b1),
            weight_sum=scalar_like(params),
            step_count=safe_increment(zero_count()),
            max_lr=scalar_like(params),
            base_optimizer_state=base_optimizer.init(params),
            z=copies(jax.tree.map(stored, copies(params))),
        )

    def stored(p):
        return cast(p, state_dtype) if state_dtype is not None and bits(p) else p

    def update(updates, state, params=None, *, again=None, **extra):
        step = state.step_count - 1
        real = state.max_lr.dtype
        rate = value_at(learning_rate, step).astype(real)
        largest = jnp.maximum(state.max_lr, rate)
        weight = largest**weight_lr_power
        total = state.weight_sum + weight
        # a rate of 0 so far, as at the start of a warm-up, has no weight
        share = jnp.where(total == 0, 0, weight / jnp.where(total == 0, 1, total))
        made, inner = base_optimizer.update(
            updates, state.base_optimizer_state, params, **extra
        )

        def leaf(u, z, half, y, *, share, b1):
            z = z + u  # and the old z is not read again (see `after`)
            return share * (z - y) + (1 - b1) * (1 - share) * (2 * half), z

        if again is None:
            halves = map_leaves(lambda u: u / 2, made)
        else:
            halves = again(updates, inner, params)
        made, z = map_leaves(
            leaf, made, state.z, halves, params, outputs=2, share=share, b1=b1
        )
        return made, ScheduleFreeState(
            state.b1, total, safe_increment(state.step_count), largest, inner, z
        )

    return init, update


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """Return the average of the iterates, at which to evaluate a model.

    `x = (y − (1 − b1)·z)/b1`

    Args:
      state: the state of `schedule_free`, alone, in a chain or inside a wrapper.
      params: the parameters `y`.

    Raises:
      ArgumentError: if the state does not hold exactly one `ScheduleFreeState`.

    Source: Defazio et al. 2024, arXiv:2405.15682, equation 3.
    """
    is_one = lambda x: isinstance(x, ScheduleFreeState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if len(found) != 1:
        raise ArgumentError(
            f"the state must hold one ScheduleFreeState, got {len(found)}. Was it made "
            "by schedule_free?",
            "schedule_free_eval_params",
        )

    def leaf(y, z, *, b1):
        return (y - (1 - b1) * z) / b1

    moving = jax.tree.map(lambda p: p if bits(p) else None, params)
    averaged = map_leaves(
        leaf,
        moving,
        jax.tree.map(lambda p, z: z if bits(p) else None, params, found[0].z),
        b1=found[0].b1,
    )
    return jax.tree.map(
        lambda p, x: p if x is None else x,
        params,
        averaged,
        is_leaf=lambda x: x is None,
    )
