"""Find what is not finite, in one tree or of two states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core import (
    AxisName,
    Role,
    all_max,
    bits,
    check_axes,
    fields,
)

#: Fields that no update reads, or that were looked at when they were written.
_PASSED = (Role.MEASURED, Role.SAVED)


def found(tree: Any) -> jax.Array:
    """Return whether any number in `tree` is not finite, on this device."""
    bad = jnp.zeros((), bool)
    for x in jax.tree.leaves(tree):
        if bits(x):
            bad = bad | jnp.any(~jnp.isfinite(x))
    return bad


def found_new(old: Any, new: Any) -> jax.Array:
    """Return whether any number of a state has become infinite or NaN.

    What was so before stays as it was: the best loss so far begins at infinity.
    """
    bad = jnp.zeros((), bool)
    for before, after in _watched(old, new):
        bad = bad | jnp.any(_broken(before, after))
    return bad


def agreed(flags: Sequence[jax.Array], axis_name: AxisName | None) -> list[jax.Array]:
    """Return each flag as it is on any device of the named axes, in one collective."""
    check_axes(axis_name)
    if axis_name is None:
        return list(flags)
    together = jnp.stack([flag.astype(jnp.int32) for flag in flags])
    return list(all_max(together, axis_name) > 0)


def _broken(old: jax.Array, new: jax.Array) -> jax.Array:
    turned = jnp.isnan(new) & ~jnp.isnan(old)
    return ~jnp.isfinite(new) & (jnp.isfinite(old) | turned)


def _watched(old: Any, new: Any) -> list[tuple[Any, Any]]:
    """Return the numbers of two states that count, in pairs."""
    pairs = []
    for before, after in zip(fields(old), fields(new), strict=False):
        if after.role not in _PASSED:
            leaves = map(jax.tree.leaves, (before.value, after.value))
            pairs += [pair for pair in zip(*leaves, strict=True) if bits(pair[1])]
    return pairs
