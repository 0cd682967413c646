"""Leave bad steps out, back off, roll back, and never apply a NaN."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.core import (
    AxisName,
    Link,
    Numeric,
    Traits,
    as_transformation,
    check_count,
    copies,
    dtype_of,
    safe_increment,
    transformation,
    typed_like,
    varying_like,
    zero_count,
    zero_norm,
)
from gradtx.guard._branches import alike, scaled, shown_finite
from gradtx.guard._policy import (
    check_alone,
    check_back_off,
    check_patience,
    check_window,
    is_cheap,
    is_exhausted,
    next_factor,
)
from gradtx.guard._snapshot import Snapshot, taken, way_back
from gradtx.guard._spikes import entered, is_spike, watched
from gradtx.guard._state import GuardedState
from gradtx.guard._verdict import agreed, found, found_new

#: Why a step is bad; one that has several reasons counts for the first.
_KINDS = ("bad_gradients", "bad_losses", "bad_updates", "spikes")


def _adjusted(traits: Traits, arguments: Any) -> Traits:
    needs = set(traits.needs)
    if arguments["roll_back_after"] is not None:
        needs.add("params")
    spikes = arguments["sigmas"] is not None
    if spikes and arguments["watch"] == "loss":
        needs.add("value")
    inner = as_transformation(arguments["inner"]).traits
    blind = not spikes or arguments["watch"] == "loss"
    return traits.replace(needs=needs, scale_free=inner.scale_free and blind)


@transformation(stage="guard", reach="tree", adjust=_adjusted)
def guarded(
    inner: Link,
    *,
    sigmas: Numeric | None = None,
    watch: Literal["norm", "loss"] = "norm",
    window: int = 128,
    warm_up: int | None = None,
    back_off: Numeric = 1.0,
    smallest: Numeric = 2.0**-10,
    recover_after: int = 100,
    roll_back_after: int | None = None,
    snapshot_every: int = 100,
    raise_after: int | None = None,
    recompute: bool | None = None,
    axis_name: AxisName | None = None,
):
    """Apply `inner`, and leave out every step that would harm.

    `u, s ← factor·inner(g, s)` where all is finite and usual, else `u ← 0`, `s ← s`

    A step is bad if a NaN or an infinity is in the gradients, in `value=`, in the
    updates of `inner` or, newly, in its state, or if what is watched is a spike:
    above `mean + sigmas·std` of the last good ones. Then updates are zero, and every
    bit of the state of `inner` is as before: moments, counts, schedules, keys. Only
    the guard's counters move. A NaN is never applied, however many come.

    After a bad step updates are multiplied by `back_off`; once `recover_after` good
    steps came in a row, divided by it, until the factor is 1 again, which changes no
    bit. After `roll_back_after` bad steps in a row the run
    goes back to the snapshot: the state of `inner` is the one kept, and updates lead
    to the parameters kept, up to rounding; `gradtx.guard.restored` is exact. Where
    nothing helps, `gradtx.guard.check(state)` raises.

    Put it around the whole optimizer: outside `accumulate` it leaves out micro-batches,
    inside whole windows.

    Costs, for AdamW on a CPU: `inner` runs once to look, where nothing is stored, and
    once more to update in place. A step reads and writes 24 times the parameters' size
    in place of 10, and holds one copy of the updates. With `recompute=False` these are
    30, and four copies: the new state lies beside the old one until all is looked at.

    Args:
      inner: what to guard.
      sigmas: standard deviations above the mean from which a step is a spike, such as
        6; by default nothing is.
      watch: what the window is of: `"norm"`, the global norm of the gradients, or
        `"loss"`, which `update` gets as `value=`.
      window: numbers in the window, those of the last good steps, 2 or more.
      warm_up: how many must be in it before a step can be a spike, in [2, window]; by
        default a quarter of the window.
      back_off: what the factor is multiplied by after each bad step, in (0, 1]. Leave
        it at 1 around what must be applied as it is, such as `schedule_free`.
      smallest: what the factor does not fall below, in (0, 1].
      recover_after: good steps in a row before the factor rises again, 1 or more.
      roll_back_after: bad steps in a row, and again after as many, before the run goes
        back, 1 or more; by default it does not. The snapshot holds the parameters and
        the state of `inner` once more.
      snapshot_every: good updates from one snapshot to the next, 1 or more. None is
        taken of parameters that are not finite. The first is what `init` got.
      raise_after: bad steps in a row from which on `check` raises; more than
        `roll_back_after`. Each roll-back to the same snapshot counts for as many as led
        to it. By default it never raises.
      recompute: whether `inner` runs twice, to spare memory. By default it does unless
        it evaluates the objective or may do costly work by shapes, as `muon` and all
        that is not of gradtx do.
      axis_name: mapped axes whose devices decide together: a bad step on one device is
        left out on all. As in `global_norm`, gradients are those of all devices.

    Raises:
      ArgumentError: if an argument is out of its range, `inner` averages over devices
        and `axis_name` is not given, or `back_off` is below 1 where updates must be
        applied as they are, as those of `lookahead`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.guarded(gradtx.sgd(1.0), back_off=0.5)
      >>> state = tx.init({"w": jnp.zeros(1)})
      >>> for g in (jnp.nan, 1.0):
      ...     updates, state = tx.update({"w": jnp.full(1, g)}, state)
      ...     print(updates["w"].tolist(), int(state.skipped), float(state.factor))
      [0.0] 1 0.5
      [-0.5] 1 0.5

    Source: Chowdhery et al. 2022, arXiv:2204.02311, section 5.1 (going back before a
      spike and leaving out its batches); Micikevicius et al. 2017, arXiv:1710.03740,
      section 3.2 (skipped updates).
    """
    inner = as_transformation(inner)
    least = check_window(sigmas, watch, window, warm_up)
    shrinks = check_back_off(inner, back_off, smallest)
    check_count(1, recover_after=recover_after, snapshot_every=snapshot_every)
    check_patience(roll_back_after, raise_after)
    check_alone(inner, axis_name)
    twice = is_cheap(inner) if recompute is None else recompute

    def init(params):
        inner_state, saved = inner.init(params), ()
        if roll_back_after is not None:
            saved = Snapshot(copies(params), copies(inner_state))
        state = GuardedState(
            batches=zero_count(),
            skipped=zero_count(),
            bad_gradients=zero_count(),
            bad_losses=zero_count(),
            bad_updates=zero_count(),
            spikes=zero_count(),
            consecutive=zero_count(),
            recovery=zero_count(),
            factor=jnp.ones((), jnp.float32),
            back_offs=zero_count(),
            entries=zero_count(),
            window=() if sigmas is None else jnp.zeros(window, jnp.float32),
            snapshot=saved,
            snapshot_age=zero_count(),
            roll_backs=zero_count(),
            attempts=zero_count(),
            rolled_back=jnp.zeros((), bool),
            exhausted=jnp.zeros((), bool),
            inner_state=inner_state,
        )
        # in a shard_map, what each device decides for itself differs between them
        own = zero_norm(params, axis_name=axis_name)
        return jax.tree.map(lambda x: varying_like(own, x), state)

    def update(updates, state, params=None, **extra):
        before, value = state.inner_state, extra.get("value")

        def run():
            made, after = inner.update(updates, before, params, **extra)
            return made, typed_like(before, after)

        # 1. what comes in, what would be made of it, and what stands out
        made, after = run()
        seen, spike = None, jnp.zeros((), bool)
        if sigmas is not None:
            seen = watched(updates, value, watch, axis_name)
            spike = is_spike(seen, state.window, state.entries, sigmas, least)
        normed = seen is not None and watch == "norm"
        wrong = [
            found(seen if normed else updates),
            found(value),
            found(made) | found_new(before, after),
        ]
        flags = agreed([*wrong, spike], axis_name)
        bad = functools.reduce(jnp.logical_or, flags)
        row = jnp.where(bad, safe_increment(state.consecutive), 0)
        back, took, token = jnp.zeros_like(bad), jnp.zeros_like(bad), 0

        # 2. a snapshot of what this step begins with, if it is good
        saved = state.snapshot
        if roll_back_after is not None:
            back = bad & (row % roll_back_after == 0)
            due = ~bad & (state.snapshot_age >= snapshot_every)
            now = Snapshot(params, before)
            saved, took, token = taken(due, now, saved, axis_name)

        # 3. the step; float0 belongs to no branch
        leaves, structure = jax.tree.flatten(made)
        moving = [i for i, u in enumerate(leaves) if dtype_of(u) != jax.dtypes.float0]
        chosen = lambda tree: [jnp.asarray(jax.tree.leaves(tree)[i]) for i in moving]

        def good():
            new, left = run() if twice else (made, after)
            if twice:
                # another program may round to infinity what the first did not
                new = shown_finite(new)
            return chosen(scaled(new, state.factor) if shrinks else new), left

        def skip():
            return [jnp.zeros_like(u) for u in chosen(made)], before

        # Looked at under XLA for CPUs: in these branches, in this order, the new state
        # is written in place, when the snapshot of the old is taken. In any other way
        # that was tried, such as a `switch`, it is copied.
        moved, inner_state = lax.cond(~bad & (token >= 0), *alike([good, skip]))
        if roll_back_after is not None:

            def go_back():
                way = way_back(params, saved.params, made)
                return chosen(way), saved.inner_state

            kept = moved, inner_state
            moved, inner_state = lax.cond(back, *alike([go_back, lambda: kept]))
        for i, u in zip(moving, moved, strict=True):
            leaves[i] = u

        # 4. what is told
        counts, earlier = {}, jnp.zeros_like(bad)
        for name, flag in zip(_KINDS, flags, strict=True):
            counts[name] = _one_more(getattr(state, name), flag & ~earlier)
            earlier = earlier | flag
        factor = state.factor
        recovery = jnp.where(bad, 0, safe_increment(state.recovery))
        if shrinks:
            factor, recovery = next_factor(
                factor, recovery, bad, back_off, smallest, recover_after
            )
        if seen is not None:
            counts["window"] = entered(seen, state.window, state.entries, ~bad)
            counts["entries"] = _one_more(state.entries, ~bad)
        attempts = jnp.where(took, 0, _one_more(state.attempts, back))
        age = jnp.where(took | back, 0, state.snapshot_age)
        return structure.unflatten(leaves), state._replace(
            batches=safe_increment(state.batches),
            skipped=_one_more(state.skipped, bad),
            **counts,
            consecutive=row,
            recovery=recovery,
            factor=factor,
            back_offs=_one_more(state.back_offs, factor < state.factor),
            snapshot=saved,
            snapshot_age=_one_more(age, ~bad),
            roll_backs=_one_more(state.roll_backs, back),
            attempts=attempts,
            rolled_back=back,
            exhausted=is_exhausted(row, attempts, roll_back_after, raise_after),
            inner_state=inner_state,
        )

    return init, update


def _one_more(count: jax.Array, flag: jax.Array) -> jax.Array:
    return jnp.where(flag, safe_increment(count), count)
