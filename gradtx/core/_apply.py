"""Move parameters: by updates, towards other parameters, or over to them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core._call import dtype_of
from gradtx.core._eager import compiled_outside, each
from gradtx.core._errors import DtypeError, signed
from gradtx.core._numerics import bits, cast, real_dtype, working
from gradtx.core._tree import check_shapes, check_structure, path_at
from gradtx.core._types import Numeric, Params, Updates


def apply_updates(params: Params, updates: Updates) -> Params:
    """Return `params + updates`, in the parameters' dtypes.

    The sum is taken in 32 bits or more and then rounded to the parameter's dtype.
    `None` parameters stay `None`, whatever their update; a `float0` update leaves its parameter as it is.

    Args:
      params: a pytree of parameters.
      updates: a pytree of the same structure and shapes; nothing is broadcast.

    Raises:
      TreeMismatchError: if the structures differ.
      ShapeError: if the shapes of two leaves differ.
      DtypeError: if an integer parameter has a floating update, or a real one a
        complex update.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, -0.25)})
      {'w': Array([0.75, 0.75], dtype=float32)}
    """
    with signed("apply_updates"):
        return _apply(params, updates)


def incremental_update(
    new_tensors: Params, old_tensors: Params, step_size: Numeric
) -> Params:
    """Move `old_tensors` a share of the way to `new_tensors`: a running mean.

    `old ← step_size·new + (1 − step_size)·old`

    It is computed in 32 bits or more. A leaf that is not floating, such as a counter,
    is taken over from `new_tensors`. `None` leaves of `new_tensors` are `None`.

    Args:
      new_tensors: the latest parameters.
      old_tensors: their running mean, of the same structure and shapes.
      step_size: the share, in [0, 1].

    Returns:
      The new mean, in the dtypes of `old_tensors`.

    Raises:
      TreeMismatchError: if structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.incremental_update(jnp.array([4.0]), jnp.array([0.0]), 0.25).tolist()
      [1.0]

    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by
    averaging"; Lillicrap et al. 2015, arXiv:1509.02971, Algorithm 1 (soft target).

    Differs from optax: the result has the dtypes of `old_tensors`, so that a loop can
    carry it; optax promotes, and makes counters floating.
    """
    with signed("incremental_update"):
        old_tensors = _paired(new_tensors, old_tensors)
        return jax.tree.map(
            lambda new, old: _mixed(new, old, step_size), new_tensors, old_tensors
        )


def periodic_update(
    new_tensors: Params, old_tensors: Params, steps: Numeric, update_period: Numeric
) -> Params:
    """Return `new_tensors` at every `update_period`-th step, else `old_tensors`.

    `old ← new` where `steps mod update_period = 0`, which holds at step 0 too

    Args:
      new_tensors: the latest parameters.
      old_tensors: a copy of earlier ones, of the same structure and shapes.
      steps: steps made so far; may be traced.
      update_period: steps between two copies, 1 or more; may be traced.

    Returns:
      One of the two, in the dtypes of `old_tensors`.

    Raises:
      TreeMismatchError: if structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> new, old = jnp.array([4.0]), jnp.array([0.0])
      >>> [gradtx.periodic_update(new, old, step, 2).item() for step in (2, 3)]
      [4.0, 0.0]

    Source: Mnih et al. 2015, doi:10.1038/nature14236, Algorithm 1 (target network).
    """
    with signed("periodic_update"):
        old_tensors = _paired(new_tensors, old_tensors)
        new_tensors = jax.tree.map(
            lambda new, old: _retyped(new, dtype_of(old)), new_tensors, old_tensors
        )
        due = jnp.asarray(steps) % jnp.asarray(update_period) == 0
        return lax.cond(due, lambda: new_tensors, lambda: old_tensors)


def _without_absent(params: Any, tree: Any) -> Any:
    """Return `tree` without the leaves for which `params` has `None`."""
    if jax.tree.structure(params) == jax.tree.structure(tree):
        return tree
    absent = lambda p: p is None
    try:
        return jax.tree.map(
            lambda p, x: None if absent(p) else x, params, tree, is_leaf=absent
        )
    except ValueError:  # `check_structure` says it better
        return tree


def _paired(new: Any, old: Any) -> Any:
    """Return the old leaves that belong to the new ones, as arrays."""
    old = _without_absent(new, old)
    check_structure(old, new, "old_tensors", "new_tensors")
    check_shapes(old, new, "new_tensors")
    return jax.tree.map(jnp.asarray, old)


def _mixed(new: Any, old: jax.Array, step_size: Numeric) -> jax.Array:
    if not (bits(new) and bits(old)):
        return _retyped(new, old.dtype)
    precise = 64 in (bits(new), bits(old))
    new, mean = working(new, precise), working(old, precise)
    if not isinstance(step_size, (int, float)):
        step_size = jnp.asarray(step_size).astype(real_dtype(mean.dtype))
    with jax.numpy_dtype_promotion("standard"):
        both = jnp.promote_types(new.dtype, mean.dtype)  # a real with a complex
    new, mean = new.astype(both), mean.astype(both)
    if jnp.issubdtype(both, jnp.complexfloating):
        step_size = jnp.asarray(step_size, both)
    return cast(step_size * new + (1 - step_size) * mean, old.dtype)


def _retyped(x: Any, dtype: Any) -> Any:
    if dtype_of(x) == dtype or jnp.issubdtype(dtype, jax.dtypes.extended):
        return jnp.asarray(x)
    return cast(x, dtype)


@compiled_outside
def _apply(params: Params, updates: Updates) -> Params:
    updates = _without_absent(params, updates)
    check_structure(params, updates, "params", "updates")
    check_shapes(params, updates, "updates")
    leaves, structure = jax.tree.flatten(params)
    rows = list(zip(leaves, jax.tree.leaves(updates), strict=True))
    moving = [i for i, (_, u) in enumerate(rows) if dtype_of(u) != jax.dtypes.float0]
    for i in moving:
        _check_sum(*rows[i], params, i)
    for i, new in zip(moving, each(_added, [rows[i] for i in moving]), strict=True):
        leaves[i] = new
    return structure.unflatten(leaves)


def _check_sum(p: Any, u: Any, params: Params, index: int) -> None:
    mine, its = dtype_of(p), dtype_of(u)
    if not jnp.issubdtype(mine, jnp.inexact):
        if jnp.issubdtype(its, jnp.inexact):
            raise DtypeError(
                f"params{path_at(params, index)} has dtype {mine} and its update {its}: the sum "
                "would be cut off. Freeze this parameter or make it floating."
            )
    elif jnp.issubdtype(its, jnp.complexfloating) and not jnp.issubdtype(
        mine, jnp.complexfloating
    ):
        raise DtypeError(
            f"params{path_at(params, index)} is real ({mine}) and its update complex ({its}). "
            "Take the real part of the gradient."
        )


def _added(p: Any, u: Any) -> Any:
    mine = dtype_of(p)
    if not jnp.issubdtype(mine, jnp.inexact):
        return jnp.asarray(p) + jnp.asarray(u).astype(mine)
    precise = 64 in (bits(p), bits(u))
    p, u = working(p, precise), working(u, precise)
    return cast(p + u.astype(p.dtype), mine)
