"""Read how a guarded run stands, and raise where a person must look."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gradtx.core import ArgumentError, DivergedError, fields

#: From good to bad.
_CONDITIONS = ("good", "backed off", "skipping", "exhausted")


class GuardStatus(NamedTuple):
    """How a guarded run stands.

    Attributes:
      condition: `"good"`; `"backed off"` where the last step was good and updates are
        made smaller; `"skipping"` where it was left out; `"exhausted"` where more than
        `raise_after` were, and nothing has helped.
      batches: calls of `update`, since `init`.
      skipped: those that were left out: the sum of the next four.
      bad_gradients: for a NaN or an infinity in the gradients.
      bad_losses: for one in `value=`.
      bad_updates: for one in the updates or in the new state.
      spikes: for a number far above those before.
      consecutive: how many were left out in a row, up to now.
      last_good: the number of the last batch that was not, from 1; 0 if there is none.
      factor: what updates are multiplied by.
      back_offs: how often that was made smaller.
      roll_backs: how often the run went back to a snapshot.
    """

    condition: Literal["good", "backed off", "skipping", "exhausted"]
    batches: int
    skipped: int
    bad_gradients: int
    bad_losses: int
    bad_updates: int
    spikes: int
    consecutive: int
    last_good: int
    factor: float
    back_offs: int
    roll_backs: int


def status(opt_state: Any) -> GuardStatus:
    """Return how a guarded run stands; waits for the device.

    Args:
      opt_state: the state of an optimizer with `guarded` anywhere in it, or a
        `TrainState` that holds it. Of several guards, and of several runs under `vmap`
        or `pmap`, the one that stands worst.

    Raises:
      ArgumentError: if no guard is in it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.guarded(gradtx.adam(1e-3)))
      >>> state = tx.init(jnp.zeros(1))
      >>> _, state = tx.update(jnp.full(1, jnp.nan), state)
      >>> found = gradtx.guard.status(state)
      >>> found.condition, found.bad_gradients, found.last_good
      ('skipping', 1, 0)
    """
    guards: dict[str, dict[str, Any]] = {}
    for field in fields(getattr(opt_state, "opt_state", opt_state)):
        if field.state == "GuardedState" and field.name in _READ:
            path = field.path.rpartition(".")[0]
            # what Flax puts around an array is taken off
            guards.setdefault(path, {})[field.name] = jax.tree.leaves(field.value)[0]
    if not guards:
        raise ArgumentError(
            f"there is no guard in {type(opt_state).__name__}. Give the state of an "
            "optimizer, and wrap it: gradtx.guarded(tx).",
            "status",
        )
    found = [
        one for guard in jax.device_get(list(guards.values())) for one in _each(guard)
    ]
    return max(found, key=lambda s: (_CONDITIONS.index(s.condition), s.consecutive))


def check(opt_state: Any) -> GuardStatus:
    """Raise where a guarded run is exhausted; else return how it stands.

    Call it now and then, such as where losses are logged: it waits for the device.
    While nobody calls it, bad steps are left out as before.

    Args:
      opt_state: as in `status`.

    Raises:
      DivergedError: if `raise_after` bad steps were left out in a row, or roll-backs
        did not help; the message tells what happened and what to do.
      ArgumentError: if no guard is in it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.guarded(gradtx.adam(1e-3), raise_after=1)
      >>> _, state = tx.update(jnp.full(1, jnp.nan), tx.init(jnp.zeros(1)))
      >>> gradtx.guard.check(state)
      Traceback (most recent call last):
      gradtx.DivergedError: guarded: the run makes no progress: ...
    """
    now = status(opt_state)
    if now.condition == "exhausted":
        raise DivergedError(_told(now), "guarded")
    return now


_READ = {*GuardStatus._fields, "exhausted"} - {"condition", "last_good"}


def _each(guard: dict[str, Any]) -> list[GuardStatus]:
    """Return the status of each run, of which a population has several."""
    flat = {name: np.ravel(value) for name, value in guard.items()}
    return [
        _one({name: values[i].item() for name, values in flat.items()})
        for i in range(flat["batches"].size)
    ]


def _one(guard: dict[str, Any]) -> GuardStatus:
    exhausted = guard.pop("exhausted")
    place = 1 if guard["factor"] < 1 else 0
    place = 2 if guard["consecutive"] else place
    condition = _CONDITIONS[3 if exhausted else place]
    last_good = guard["batches"] - guard["consecutive"]
    return GuardStatus(condition=condition, last_good=last_good, **guard)


def _told(now: GuardStatus) -> str:
    kinds = {
        "NaN or infinity in the gradients": now.bad_gradients,
        "in the loss": now.bad_losses,
        "in the updates or the state": now.bad_updates,
        "spikes": now.spikes,
    }
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    since = (
        f"{now.consecutive:,} batches in a row were left out, from batch "
        f"{now.last_good + 1:,} to {now.batches:,}; the last good one was "
        f"{now.last_good or 'none'}"
        if now.consecutive
        else f"batch {now.batches:,} was good again, but not for long after roll-backs"
    )
    return (
        f"the run makes no progress: {since}. Left out since the start: {listed}. "
        f"Updates are multiplied by {now.factor:g}; there were {now.back_offs:,} "
        f"back-offs and {now.roll_backs:,} roll-backs. Parameters and state are those "
        f"of the last good step or snapshot, and finite. {_advice(kinds)}"
    )


def _advice(kinds: dict[str, int]) -> str:
    most = max(kinds, key=kinds.__getitem__)
    if most == "spikes":
        return (
            "If the loss before was as it should be, the window is of another time: "
            "raise sigmas, or continue from here with a fresh guard. Else lower the "
            "learning rate, or leave out the data of these batches."
        )
    if most == "in the updates or the state":
        return (
            "Gradients were finite and what was made of them was not: they are too "
            "large for the dtype, or a hyperparameter is. Clip them before, or lower "
            "the learning rate."
        )
    return (
        "Look at the data of these batches, and at the first parameter with a NaN: "
        "gradtx.observe(tx, per_leaf=True) names it. Then continue from here, or from "
        "a checkpoint, with a lower learning rate, clipping, or other data."
    )
