"""Sum over mapped axes, and say clearly when an axis is not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any

import jax
from jax import lax

from gradtx.core._errors import AxisNameError
from gradtx.core._types import AxisName


def axes_of(axis_name: AxisName | None) -> tuple[str, ...]:
    """Return axis names as a tuple: none, one or several."""
    if axis_name is None:
        return ()
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def check_axes(axis_name: AxisName | None) -> None:
    """Raise `AxisNameError` for an axis that nothing around this code binds."""
    for axis in axes_of(axis_name):
        _index(axis)


def varying_axes(x: Any, axis_name: AxisName | None) -> tuple[str, ...]:
    """Return those of the named axes over which `x` may differ between devices.

    `shard_map` with `check_vma=True` knows this of every array. Elsewhere (`pmap`,
    `vmap`, `check_vma=False`) nothing is known and all named axes are returned.
    """
    return tuple(
        axis
        for axis in axes_of(axis_name)
        if not tracks_variance(axis) or axis in varies_over(x)
    )


def varying(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Return `x` typed as one value per device of the named axes.

    Summing a number that is equal everywhere then counts it once per device.
    """
    return retyped(x, {a for a in axes_of(axis_name) if tracks_variance(a)})


def varying_like(old: Any, new: Any) -> Any:
    """Return `new`, typed as varying wherever `old` is.

    A state that differs between devices then keeps its type where `update` computes
    a number that happens to be equal on all: `lax.scan` and `lax.cond` want that.
    Outside `shard_map`, and for trees of different structure, `new` itself.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return new
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new
    return jax.tree.map(lambda o, n: retyped(n, varies_over(o)), old, new)


def varies_over(x: Any) -> frozenset[str]:
    """Return the mapped axes over which the type of `x` says that it varies."""
    return jax.typeof(x).manual_axis_type.varying


def retyped(x: Any, axes: Set[str]) -> Any:
    """Return `x`, typed as varying over `axes` too; their types must be tracked."""
    missing = tuple(sorted(axes - varies_over(x)))
    return lax.pcast(x, missing, to="varying") if missing else x


def shards(x: Any, axis_name: AxisName | None) -> int:
    """Return over how many devices of the named axes `x` is spread."""
    return math.prod(lax.axis_size(axis) for axis in varying_axes(x, axis_name))


def tracks_variance(axis: str) -> bool:
    """Say whether array types here tell over which axes arrays vary."""
    return axis in varies_over(_index(axis))


def all_sum(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Sum `x` over those named axes over which it varies; else return it as it is."""
    return _reduced(lax.psum, x, axis_name)


def all_max(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Take the maximum of `x` over those named axes over which it varies."""
    return _reduced(lax.pmax, x, axis_name)


def _index(axis: str) -> jax.Array:
    """Return the number of this device along a mapped axis."""
    try:
        return lax.axis_index(axis)
    except NameError:
        raise AxisNameError(
            f"axis {axis!r} is not mapped here. Run update inside jax.pmap(..., "
            f"axis_name={axis!r}) or a jax.shard_map over a mesh with that axis, "
            "or leave the axis name out under plain jit, where arrays are whole."
        ) from None


def _reduced(
    collective: Callable[..., jax.Array], x: jax.Array, axis_name: AxisName | None
) -> jax.Array:
    axes = varying_axes(x, axis_name)
    return collective(x, axes) if axes else x
