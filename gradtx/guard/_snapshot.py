"""Keep the parameters and the state of a good step, and go back to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    AxisName,
    Inner,
    MaskedNode,
    PerParam,
    bits,
    cast,
    fields,
    working,
    zero_count,
)
from gradtx.guard._branches import alike
from gradtx.guard._verdict import agreed, found


class Snapshot(NamedTuple):
    """What `guarded` goes back to.

    Attributes:
      params: the parameters that a good step began with.
      inner_state: the state of the guarded transformation then.
    """

    params: PerParam
    inner_state: Inner


def taken(
    due: jax.Array, now: Snapshot, old: Snapshot, axis_name: AxisName | None
) -> tuple[Snapshot, jax.Array, jax.Array]:
    """Return the snapshot to keep, and whether it is that of `now`.

    One is taken where it is `due` and all parameters are finite; the state was looked
    at when it was made. The third value is 0 or 1 and is there when that is done: what
    waits for it does not overwrite what is copied.
    """
    look = lambda: ~agreed([found(now.params)], axis_name)[0]
    sound = lax.cond(due, *alike([look, lambda: jnp.zeros_like(due)]))
    take, keep = lambda: (now, zero_count()), lambda: (old, zero_count() + 1)
    saved, token = lax.cond(sound, *alike([take, keep]))
    return saved, sound, token


def way_back(params: Any, saved: Any, updates: Any) -> Any:
    """Return what, added to parameters, gives those of a snapshot, up to rounding.

    Where it is not finite there is no such number, and 0 in its place.

    Args:
      params: the parameters now.
      saved: those of the snapshot.
      updates: a tree of the dtypes that updates have.
    """

    def leaf(p: Any, s: Any, u: Any) -> Any:
        if not bits(u):
            return u
        way = working(s) - working(p)
        return cast(jnp.where(jnp.isfinite(way), way, 0), u.dtype)

    leaves = map(jax.tree.leaves, (params, saved, updates))
    made = [leaf(*row) for row in zip(*leaves, strict=True)]
    return jax.tree.structure(updates).unflatten(made)


def restored(params: Any, state: Any) -> Any:
    """Return the snapshot's parameters right after a roll-back, else `params`.

    The updates of a roll-back are the way from the parameters to the snapshot's, so
    that `apply_updates` goes back in any loop, up to rounding: `p + (s − p)` need not
    be `s`, and no update mends a parameter that is NaN. This is exact, bit for bit:

        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
        params = gradtx.guard.restored(params, state)

    Args:
      params: the parameters after `apply_updates`.
      state: the state of an optimizer with `guarded` in it, or a `TrainState`. Without
        a snapshot in it, the parameters are returned.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.guarded(gradtx.sgd(1.0), roll_back_after=1)
      >>> state = tx.init({"w": jnp.ones(1)})
      >>> params = {"w": jnp.full(1, jnp.nan)}
      >>> updates, state = tx.update(params, state, params)
      >>> gradtx.guard.restored(params, state)["w"].tolist()
      [1.0]
    """
    listed = fields(getattr(state, "opt_state", state))
    for flag, snapshot in zip(
        _named(listed, "rolled_back"), _named(listed, "snapshot")
    ):
        if isinstance(snapshot, Snapshot):
            params = _chosen(jax.tree.leaves(flag)[0], snapshot.params, params)
    return params


def _named(listed: Any, name: str) -> list[Any]:
    return [x.value for x in listed if (x.state, x.name) == ("GuardedState", name)]


def _chosen(flag: jax.Array, saved: Any, params: Any) -> Any:
    hidden = lambda x: isinstance(x, MaskedNode)
    # the leaves of a model of Flax lie in boxes, those of its optimizer in others
    saved = jax.tree.leaves(saved, is_leaf=hidden)
    leaves, structure = jax.tree.flatten(params)
    pairs = zip(saved, leaves, strict=True)
    made = [p if hidden(s) else jnp.where(flag, s, p) for s, p in pairs]
    return structure.unflatten(made)
