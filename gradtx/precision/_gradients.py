"""Look at scaled gradients, and undo their scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    AxisName,
    all_max,
    bits,
    check_axes,
    varying_axes,
    working,
)


def examined(updates: Any, axis_name: AxisName | None) -> tuple[jax.Array, jax.Array]:
    """Say whether all gradients are finite, and whether those of some leaf are all zero.

    Each leaf is read once: its largest magnitude tells both, as a NaN is the largest.

    Args:
      updates: gradients.
      axis_name: mapped axes whose devices must come to one result.

    Returns:
      Two scalar bools, equal on all devices of the named axes.

    Raises:
      AxisNameError: if an axis is not mapped here.
    """
    check_axes(axis_name)
    # leaves that vary over the same axes need one collective
    alike: dict[tuple[str, ...], list[jax.Array]] = {}
    for g in jax.tree.leaves(updates):
        if bits(g) and g.size:
            largest = _largest(g)
            alike.setdefault(varying_axes(largest, axis_name), []).append(largest)
    finite, vanished = jnp.ones((), bool), jnp.zeros((), bool)
    for axes, each in alike.items():
        found = [(~jnp.isfinite(x), x != 0) for x in each]
        if axes:
            table = jnp.array(found).astype(jnp.int32)  # (leaves, 2)
            found = all_max(table, axes) > 0
        for bad, some in found:
            finite, vanished = finite & ~bad, vanished | ~some
    return finite, vanished


def _largest(g: jax.Array) -> jax.Array:
    """Return the largest magnitude of a part of a number; NaN where one is NaN."""
    if jnp.iscomplexobj(g):
        return jnp.maximum(_largest(g.real), _largest(g.imag))
    return jnp.max(jnp.abs(g))


def unscaled(updates: Any, scale: jax.Array) -> Any:
    """Return gradients divided by a power of two, in 32 bits or more.

    In float16 they would underflow once more. The division is exact but for numbers
    that 32 bits cannot hold.

    Args:
      updates: gradients; a `float0` leaf passes as it is.
      scale: a float32 scalar.
    """
    inverse = 1 / scale

    def leaf(g: jax.Array) -> Any:
        if not bits(g):
            return g
        g = working(g)
        if jnp.iscomplexobj(g):
            by = inverse.astype(g.real.dtype)
            return lax.complex(g.real * by, g.imag * by)
        return g * inverse.astype(g.dtype)

    return jax.tree.map(leaf, updates)
