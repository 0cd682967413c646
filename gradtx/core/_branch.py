"""Run a transformation under a condition, with one type of result either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core._call import dtype_of
from gradtx.core._collectives import varying_like
from gradtx.core._errors import ArgumentError
from gradtx.core._masking import hide, reveal
from gradtx.core._numerics import bits, cast
from gradtx.core._transformation import GradientTransformation


def update_if(
    condition: Any,
    inner: GradientTransformation,
    updates: Any,
    state: Any,
    params: Any,
    extra: dict[str, Any],
    *,
    else_zero: bool = False,
    prepare: Callable[[Any], Any] | None = None,
) -> tuple[Any, Any]:
    """Return what `inner` makes of the updates and its state where a condition holds.

    Both branches give updates of the gradients' dtypes and states of the dtypes that
    they had, also where `inner` is a foreign link whose types drift.

    Args:
      condition: a bool or a number, other than 0 for yes.
      inner: what to apply.
      updates, state, params, extra: what its `update` gets.
      else_zero: whether updates are zero else; by default they are the gradients.
      prepare: what is done to the gradients first where `inner` runs, so that no copy
        of them is kept for it.

    Raises:
      ArgumentError: if gradients per example would be passed on.
    """
    # float0 belongs to no branch: it goes around the condition
    moving = jax.tree.map(lambda g: dtype_of(g) != jax.dtypes.float0, updates)
    form = inner.traits.form
    if form == "examples" and not else_zero:
        raise ArgumentError(
            f"gradients per example cannot be passed on, as {inner.name} makes one of "
            "them. Put it in front of the condition."
        )

    def each(change: Callable[[Any], Any], made: Any) -> Any:
        """Change updates, or both sets of a pair."""
        return type(made)(*map(change, made)) if form == "pairs" else change(made)

    def typed() -> Any:
        """Return the types of what comes out, in the form that `inner` gives it."""
        if form == "examples":
            rows = jax.tree.map(lambda g: g[0] if bits(g) else g, updates)
            return hide(moving, rows)
        if form == "pairs":
            still = hide(moving, jax.tree.map(jnp.zeros_like, params.slow))
            return type(params)(hide(moving, updates), still)
        return hide(moving, updates)

    shown = typed()

    def run() -> tuple[Any, Any]:
        given = updates if prepare is None else prepare(updates)
        made, after = inner.update(given, state, params, **extra)
        made = each(lambda tree: hide(moving, tree), made)
        made, after = typed_like((shown, state), (made, after))
        # zeros are the same on all devices: updates may be, though gradients are not
        made = made if else_zero else varying_like(shown, made)
        return made, varying_like(state, after)

    def rest() -> tuple[Any, Any]:
        if not jax.sharding.get_abstract_mesh().manual_axes:
            kept = jax.tree.map(jnp.zeros_like, shown) if else_zero else shown
            return jax.tree.map(jnp.asarray, (kept, state))
        typed = jax.eval_shape(run)
        kept = jax.tree.map(jnp.zeros_like, typed[0]) if else_zero else shown
        return varying_like(typed, jax.tree.map(jnp.asarray, (kept, state)))

    made, after = lax.cond(jnp.asarray(condition).astype(bool), run, rest)
    return each(lambda tree: reveal(moving, tree, updates), made), after


def typed_like(old: Any, new: Any) -> Any:
    """Return `new` in the dtypes of `old`, where they have one structure.

    The states of foreign links drift: what was float32 comes back as another dtype.
    """
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new
    return jax.tree.map(_typed, old, new)


def _typed(old: Any, new: Any) -> Any:
    dtype = dtype_of(old)
    if jnp.issubdtype(dtype, jax.dtypes.extended) or dtype_of(new) == dtype:
        return jnp.asarray(new)
    return cast(new, dtype)
