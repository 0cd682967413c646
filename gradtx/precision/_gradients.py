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

    Each leaf is read once: the sum of its magnitudes tells both. Numbers below 1e-28
    count as zero.

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
            total = _total(g)
            alike.setdefault(varying_axes(total, axis_name), []).append(total)
    finite, vanished = jnp.ones((), bool), jnp.zeros((), bool)
    for axes, each in alike.items():
        found = [(~jnp.isfinite(x), x != 0) for x in each]
        if axes:
            table = jnp.array(found).astype(jnp.int32)  # (leaves, 2)
            found = all_max(table, axes) > 0
        for bad, some in found:
            finite, vanished = finite & ~bad, vanished | ~some
    return finite, vanished


def _total(g: jax.Array) -> jax.Array:
    """Return a multiple of the sum of magnitudes, finite where every number is."""
    if jnp.iscomplexobj(g):
        return _total(g.real) + _total(g.imag)
    # 2^32 of the largest numbers have a finite sum. XLA's maximum is no substitute: on
    # a CPU it passes over NaNs in large float32 arrays (jax 0.10.2).
    return jnp.sum(jnp.abs(working(g)) * 2.0**-32)


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
