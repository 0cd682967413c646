"""Look ahead: slow parameters follow fast ones at every k-th step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    Count,
    Inner,
    Link,
    Numeric,
    as_transformation,
    check_count,
    copies,
    dtype_of,
    map_leaves,
    safe_increment,
    transformation,
    zero_count,
)


class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
      fast_state: the state of the fast optimizer.
      steps_since_sync: its updates since the slow parameters followed.
    """

    fast_state: Inner
    steps_since_sync: Count


class LookaheadParams(NamedTuple):
    """The two sets of parameters of `lookahead`.

    Attributes:
      fast: those at which gradients are taken.
      slow: those to evaluate.
    """

    fast: Any
    slow: Any

    @classmethod
    def init_synced(cls, params: Any) -> LookaheadParams:
        """Return a pair of equal parameters, each in buffers of its own.

        Args:
          params: a pytree of parameters.
        """
        return cls(fast=params, slow=copies(params))


@transformation(needs={"params"}, form="pairs")
def lookahead(
    fast_optimizer: Link,
    sync_period: int,
    slow_step_size: Numeric,
    reset_state: bool = False,
):
    """Step with one optimizer, and move slow parameters along at every k-th step.

    `fast ← fast + u(g)`; every `sync_period` steps
    `slow ← slow + slow_step_size·(fast − slow)`, `fast ← slow`

    Parameters and updates are `LookaheadParams`; the gradients are those at
    `params.fast`. The updates must be applied as they are.

    Args:
      fast_optimizer: what takes the steps. `init` accepts the fast parameters alone.
      sync_period: steps between two moves of the slow parameters, 1 or more.
      slow_step_size: the share of the way that they go, in (0, 1].
      reset_state: whether the optimizer starts anew after each move.

    Raises:
      ArgumentError: if `sync_period` is no integer of 1 or more, `fast_optimizer` is
        such as `lookahead` itself, or `update` gets parameters that are no
        `LookaheadParams`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.lookahead(gradtx.sgd(1.0), sync_period=1, slow_step_size=0.5)
      >>> params = gradtx.LookaheadParams.init_synced({"w": jnp.ones(1)})
      >>> updates, state = tx.update({"w": jnp.ones(1)}, tx.init(params), params)
      >>> gradtx.apply_updates(params, updates).slow["w"].tolist()
      [0.5]

    Source: Zhang et al. 2019, arXiv:1907.08610, Algorithm 1.
    """
    fast_optimizer = as_transformation(fast_optimizer)
    if fast_optimizer.traits.form == "pairs":
        raise ArgumentError(
            f"{fast_optimizer.name} steps on pairs of parameters, and lookahead needs "
            "one that steps on single ones."
        )
    check_count(1, sync_period=sync_period)

    def init(params):
        fast = params.fast if isinstance(params, LookaheadParams) else params
        return LookaheadState(fast_optimizer.init(fast), zero_count())

    def update(updates, state, params=None, **extra):
        if not isinstance(params, LookaheadParams):
            raise ArgumentError(
                "update needs params of type LookaheadParams, got "
                f"{type(params).__name__}. Make them once by "
                "LookaheadParams.init_synced(params)."
            )
        made, fast_state = fast_optimizer.update(
            updates, state.fast_state, params.fast, **extra
        )
        steps = safe_increment(state.steps_since_sync)
        sync = steps >= sync_period

        def leaf(u, slow, fast, *, share, sync):
            gone = sync * (fast + u - slow)
            return u - (1 - share) * gone, share * gone

        fast, slow = map_leaves(
            leaf,
            made,
            params.slow,
            params.fast,
            outputs=2,
            share=slow_step_size,
            sync=sync,
        )
        # an integer leaf, whose gradient is float0, moves in neither set
        slow = jax.tree.map(
            lambda u, s: u if dtype_of(u) == jax.dtypes.float0 else s, fast, slow
        )
        if reset_state:
            fast_state = chosen(sync, fast_optimizer.init(params.fast), fast_state)
        steps = jnp.where(sync, 0, steps)
        return LookaheadParams(fast, slow), LookaheadState(fast_state, steps)

    return init, update


def chosen(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Return one of two trees of one structure, keys included."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
