"""Sharpness-aware minimisation: step by the gradient at a worse place nearby."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.combinators._lookahead import chosen
from gradtx.core import (
    AxisName,
    Count,
    Inner,
    Link,
    PerParam,
    apply_updates,
    as_transformation,
    check_count,
    copies,
    map_leaves,
    safe_increment,
    transformation,
    update_if,
    zero_count,
)


class SAMState(NamedTuple):
    """The state of `sam`.

    Attributes:
      steps_since_sync: adversarial steps since the last outer one.
      opt_state: the state of the outer optimizer.
      adv_state: the state of the adversarial one.
      cache: the parameters to which the next outer step belongs; `None` in opaque
        mode.
    """

    steps_since_sync: Count
    opt_state: Inner
    adv_state: Inner
    cache: PerParam


@transformation(
    needs={"params"},
    adjust=lambda traits, given: (
        traits.replace(needs=traits.needs | {"grad_fn"})
        if given["opaque_mode"]
        else traits
    ),
)
def sam(
    optimizer: Link,
    adv_optimizer: Link,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: AxisName | None = None,
):
    """Climb with one optimizer, and step with another by the gradient found there.

    `q ← p − adv_optimizer(∇f(p))`, `sync_period − 1` times from `p` on;
    `p ← p + optimizer(∇f(q))`

    In transparent mode, one call is one of these steps: parameters are at `q` between
    them. In opaque mode one call does all, and `update` needs
    `grad_fn=(params, i) -> gradient`, i = 0, 1, …

    Args:
      optimizer: what takes the outer step.
      adv_optimizer: what climbs, written as for descent:
        `chain(normalize(), sgd(rho))`.
      sync_period: calls per outer step, 1 or more; 2 is the method of the paper.
      reset_state: whether the adversarial optimizer starts anew after an outer step.
      opaque_mode: whether one call does all steps.
      batch_axis_name: mapped axes over which opaque mode averages its gradients.

    Raises:
      ArgumentError: if `sync_period` is no integer of 1 or more.
      MissingArgumentError: if `update` gets no parameters, or no `grad_fn` in opaque
        mode.

    Source: Foret et al. 2020, arXiv:2010.01412, Algorithm 1.
    """
    optimizer = as_transformation(optimizer)
    adv_optimizer = as_transformation(adv_optimizer)
    check_count(1, sync_period=sync_period)

    def init(params):
        cache = None if opaque_mode else copies(params)
        return SAMState(
            zero_count(), optimizer.init(params), adv_optimizer.init(params), cache
        )

    def transparent(updates, state, params=None, **extra):
        first = state.steps_since_sync == 0
        steps = safe_increment(state.steps_since_sync)
        last = steps >= sync_period

        def keep(g, cache, p, *, first):
            return g, jnp.where(first != 0, p, cache)

        _, cache = map_leaves(
            keep, updates, state.cache, params, outputs=2, first=first
        )
        climb, adv_state = update_if(
            ~last, adv_optimizer, updates, state.adv_state, params, extra
        )
        step, opt_state = update_if(
            last, optimizer, updates, state.opt_state, cache, extra
        )

        def leaf(climb, step, cache, p, *, last):
            return jnp.where(last != 0, cache - p + step, -climb)

        made = map_leaves(leaf, climb, step, cache, params, last=last)
        if reset_state:
            adv_state = chosen(last, adv_optimizer.init(params), adv_state)
        steps = jnp.where(last, 0, steps)
        return made, SAMState(steps, opt_state, adv_state, cache)

    def opaque(updates, state, params=None, *, grad_fn, **extra):
        there, adv_state = params, state.adv_state
        for i in range(sync_period - 1):
            climb, adv_state = adv_optimizer.update(updates, adv_state, there, **extra)
            up = map_leaves(lambda g: -g, climb)
            there = apply_updates(there, up)
            updates = grad_fn(there, i)
            if batch_axis_name is not None:
                updates = jax.lax.pmean(updates, batch_axis_name)
        if reset_state:
            adv_state = adv_optimizer.init(params)
        made, opt_state = optimizer.update(updates, state.opt_state, params, **extra)
        return made, SAMState(zero_count(), opt_state, adv_state, None)

    return init, opaque if opaque_mode else transparent
