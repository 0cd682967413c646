"""Offer `accumulate` under the class and functions that optax has for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.combinators._accumulate import (
    MultiStepsState,
    ShouldSkipUpdateFunction,
    accumulate,
)
from gradtx.core import (
    DTypeLike,
    GradientTransformation,
    Link,
    Numeric,
    as_transformation,
    scaled_norm,
)


class MultiSteps:
    """Update with the mean of several gradients: `accumulate` as an object.

    `acc ← acc + g`; at every k-th call `u ← opt(acc/k)`, `acc ← 0`, else `u ← 0`

    Args:
      opt: what turns the accumulated gradient into an update.
      every_k_schedule: calls per update, 1 or more, or a function of the updates made.
      use_grad_mean: whether to take the mean of the gradients; else their sum.
      should_skip_update_fn: the argument `skip` of `accumulate`.
      accumulator_dtype: dtype of the sum.

    Raises:
      ArgumentError: as `accumulate` does.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.MultiSteps(gradtx.sgd(1.0), every_k_schedule=2)
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> updates, state = tx.update({"w": jnp.ones(1)}, state)
      >>> bool(tx.has_updated(state))
      False

    Source: Ott et al. 2018, arXiv:1806.00187, section 3 (cumulative updates).

    Differs from optax: `opt` runs at every k-th call only, so that the calls between
    cost nothing, and a NaN that it makes there cannot leak.
    """

    def __init__(
        self,
        opt: Link,
        every_k_schedule: int | Callable[[Numeric], Numeric],
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DTypeLike = jnp.float32,
    ):
        self._inner = as_transformation(opt)
        self._tx = accumulate(
            self._inner,
            every_k_schedule,
            mean=use_grad_mean,
            accumulator_dtype=accumulator_dtype,
            skip=should_skip_update_fn,
        )

    @property
    def inner_opt(self) -> GradientTransformation:
        """The wrapped transformation."""
        return self._inner

    def init(self, params: Any) -> MultiStepsState:
        """Return the state for `params`."""
        return self._tx.init(params)

    def update(
        self,
        updates: Any,
        state: MultiStepsState,
        params: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, MultiStepsState]:
        """Accumulate `updates`, and return the update or zeros, and the new state."""
        return self._tx.update(updates, state, params, **extra_args)

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Say whether the call that made `state` made an update."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """Return the transformation itself: `accumulate(opt, …)`."""
        return self._tx


def skip_not_finite(
    updates: Any, gradient_step: Any, params: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Skip gradients that hold a NaN or an infinity, for `accumulate`.

    `skip ← any(¬isfinite(g))`

    Args:
      updates: gradients.
      gradient_step, params: not looked at.

    Returns:
      Whether to skip, and a report: `should_skip`, and `num_not_finite`, the number of
      such elements as int32.
    """
    counts = [jnp.sum(~jnp.isfinite(x)) for x in jax.tree.leaves(updates)]
    count = jnp.sum(jnp.asarray(counts, jnp.int32), dtype=jnp.int32)
    return count > 0, {"should_skip": count > 0, "num_not_finite": count}


def skip_large_updates(
    updates: Any, gradient_step: Any, params: Any, max_squared_norm: Numeric
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Skip gradients of a large norm, for `accumulate`; NaN counts as large.

    `skip ← ¬(‖g‖² < max_squared_norm)`

    Args:
      updates: gradients.
      gradient_step, params: not looked at.
      max_squared_norm: the square of the norm from which on they are skipped. Bind it
        with `functools.partial`.

    Returns:
      Whether to skip, and a report: `should_skip`, and `norm_squared` as float32.
    """
    root, scale = scaled_norm(updates)
    squared = jnp.square(root) / jnp.square(scale)
    skip = ~(squared < jnp.asarray(max_squared_norm).astype(squared.dtype))
    return skip, {"should_skip": skip, "norm_squared": squared.astype(jnp.float32)}
