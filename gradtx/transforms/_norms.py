"""Norms and root mean squares with a floor, whose derivatives are finite at zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import Numeric, capped_abs_sq


def safe_norm(
    x: Any,
    min_norm: Numeric,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """Return `max(‖x‖, min_norm)`, with derivative 0 where the floor holds.

    Args:
      x: an array.
      min_norm: the floor, 0 or more.
      ord, axis, keepdims: as in `jax.numpy.linalg.norm`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> jax.grad(lambda x: gradtx.safe_norm(x, 0.0))(jnp.zeros(2)).tolist()
      [0.0, 0.0]

    Source: the double `where` of the JAX FAQ.
    """
    x = jnp.asarray(x)
    norm = jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=True)
    floor = jnp.asarray(min_norm).astype(norm.dtype)
    low = norm <= floor
    filled = jnp.where(low, jnp.ones_like(x), x)
    safe = jnp.linalg.norm(filled, ord=ord, axis=axis, keepdims=True)
    found = jnp.where(low, floor, safe)
    return found if keepdims else jnp.squeeze(found, axis=axis)


def safe_root_mean_squares(x: Any, min_rms: Numeric) -> jax.Array:
    """Return `max(√mean(|x|²), min_rms)`, with derivative 0 where the floor holds.

    Args:
      x: an array.
      min_rms: the floor, 0 or more.

    Source: the double `where` of the JAX FAQ.
    """
    x = jnp.asarray(x)
    rms = jnp.sqrt(jnp.mean(capped_abs_sq(x)))
    floor = jnp.asarray(min_rms).astype(rms.dtype)
    low = rms <= floor
    filled = jnp.where(low, jnp.ones_like(x), x)
    return jnp.where(low, floor, jnp.sqrt(jnp.mean(capped_abs_sq(filled))))
