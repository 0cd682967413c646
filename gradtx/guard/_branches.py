"""Make branches of one type, and updates that are smaller or surely finite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import bits, cast, dtype_of, real_dtype, varying_like, working


def alike(ways: Sequence[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """Return functions whose results vary over the devices over which any varies.

    The branches of a condition must have one type. Outside `shard_map` they have.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return list(ways)
    types = [jax.eval_shape(way) for way in ways]
    typed = lambda made, like: varying_like(like, made)
    return [lambda way=way: functools.reduce(typed, types, way()) for way in ways]


def shown_finite(updates: Any) -> Any:
    """Return updates with 0 for what is not finite."""
    shown = lambda u: jnp.where(jnp.isfinite(u), u, 0) if bits(u) else u
    return jax.tree.map(shown, updates)


def scaled(updates: Any, factor: jax.Array) -> Any:
    """Return updates times a factor; where it is 1, their very bits."""

    def leaf(u: Any) -> Any:
        if not bits(u):
            return u
        wide = working(u)
        times = wide * factor.astype(real_dtype(wide.dtype)).astype(wide.dtype)
        # a denormal number times 1 may be flushed to 0
        return jnp.where(factor == 1, u, cast(times, dtype_of(u)))

    return jax.tree.map(leaf, updates)
