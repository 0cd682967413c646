"""Tell a number that stands out from those before it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    ArgumentError,
    AxisName,
    Numeric,
    all_sum,
    cast,
    scaled_norm,
    shards,
)

# The sum of the squares of many numbers in float32 is good to about 1e-6 of itself:
# numbers that differ by less do not differ.
_ROUNDING = 1e-6


def is_spike(
    value: jax.Array, window: jax.Array, count: jax.Array, sigmas: Numeric, least: int
) -> jax.Array:
    """Say whether `value` lies more than `sigmas` deviations above the window's mean.

    `value > mean + sigmas·max(std, 1e-6·|mean|)`

    Args:
      value: a float32 scalar; NaN is no spike.
      window: float32 numbers in a ring.
      count: how many have been entered in it so far.
      sigmas: how many standard deviations of the numbers in the window.
      least: how many of them there must be; else nothing is a spike.
    """
    size = window.shape[0]
    there = jnp.arange(size, dtype=count.dtype) < count
    number = jnp.minimum(count, size).astype(window.dtype)
    number = jnp.maximum(number, 1)
    # divided by the largest: squares of norms of 1e30 would overflow
    largest = jnp.max(jnp.abs(window))
    unit = jnp.where(largest > 0, largest, 1)
    seen = jnp.where(there, window / unit, 0)
    mean = jnp.sum(seen) / number
    variance = jnp.sum(jnp.where(there, jnp.square(seen - mean), 0)) / number
    spread = jnp.maximum(jnp.sqrt(variance), _ROUNDING * jnp.abs(mean))
    above = value / unit > mean + jnp.asarray(sigmas, window.dtype) * spread
    return above & (count >= least) & (largest > 0)


def entered(
    value: jax.Array, window: jax.Array, count: jax.Array, good: jax.Array
) -> jax.Array:
    """Return the window with `value` in place of the oldest number, if it is `good`."""
    place = count % window.shape[0]
    return window.at[place].set(jnp.where(good, value, window[place]))


def watched(
    updates: Any, value: Any, watch: str, axis_name: AxisName | None
) -> jax.Array:
    """Return the number that a window is of, one for all devices of the named axes.

    Raises:
      ArgumentError: if it is the loss, and that is no scalar.
    """
    if watch == "norm":
        norm = scaled_norm(updates, axis_name=axis_name, kept=True).bounded
        return cast(norm, jnp.float32)
    if jnp.shape(value):
        raise ArgumentError(
            f"value must be a scalar to be watched, got shape {jnp.shape(value)}. "
            "Give its mean."
        )
    loss = cast(value, jnp.float32)
    return all_sum(loss, axis_name) / shards(loss, axis_name)
