"""Every pair of what wraps an optimizer, with a NaN at every position.

Whatever the order and wherever the NaN, parameters stay finite and training goes on. Where
the outermost part leaves bad steps out, the run is the one that never had them, bit for
bit; pairs of which neither part does, or only the inner one, are guarded as a whole too.
"""

import random
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import LookaheadParams, OrderWarning, Role
from gradtx.core import fields

#: What is combined; each takes an optimizer.
WRAPPERS = {
    "accumulate": lambda tx: gradtx.accumulate(tx, every=2),
    "guard": lambda tx: gradtx.guarded(tx),
    "clip": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "loss_scale": lambda tx: gradtx.dynamic_loss_scaling(tx, initial=4, interval=3),
    "average": lambda tx: gradtx.chain(gradtx.ema(0.5), tx),
    "lookahead": lambda tx: gradtx.lookahead(tx, sync_period=3, slow_step_size=0.5),
    "roll_back": lambda tx: gradtx.guarded(tx, roll_back_after=2, snapshot_every=1),
}
KEEPERS = {"guard", "loss_scale", "roll_back"}
PAIRS = [(a, b, True) for a in WRAPPERS for b in WRAPPERS]
#: As they are, where the inner part alone leaves bad steps out. An average before it
#: would take the NaN in, and is warned of.
PAIRS += [(a, b, False) for a in ("accumulate", "clip", "lookahead") for b in KEEPERS]
#: Nobody can make these: one scale is enough, and lookahead takes pairs of parameters.
IMPOSSIBLE = {
    ("loss_scale", "loss_scale"),
    ("accumulate", "lookahead"),
    ("clip", "lookahead"),
    ("average", "lookahead"),
    ("lookahead", "lookahead"),
}
PAIRS = [pair for pair in PAIRS if pair[:2] not in IMPOSSIBLE]
SAMPLE = random.Random(7).sample(PAIRS, 4)
CALLS = 9
#: Where nothing is wrong, a NaN comes, or two in a row come.
BAD = [(), *((t,) for t in range(CALLS)), (2, 3), (5, 6)]


def _made(outer, inner, whole):
    with warnings.catch_warnings():
        # some orders are unwise, and said to be so; none may be unsafe
        warnings.simplefilter("ignore", OrderWarning)
        tx = WRAPPERS[outer](WRAPPERS[inner](gradtx.adam(0.1)))
        return gradtx.guarded(tx) if whole and outer not in KEEPERS else tx


def _fast(params):
    return params.fast if isinstance(params, LookaheadParams) else params


def _run(tx, scaled, looks_ahead):
    """Return a program: which calls bring a NaN, and which are left out, to parameters."""
    start = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    start = LookaheadParams.init_synced(start) if looks_ahead else start

    @jax.jit
    def run(bad, absent, leaf):
        def call(carry, at):
            params, state = carry
            grads = jax.tree.map(
                lambda p: 0.5 * p + 0.1 * at.astype(p.dtype), _fast(params)
            )
            if scaled:  # gradients of a scaled loss
                factor = gradtx.precision.loss_scale(state)
                grads = jax.tree.map(lambda g: g * factor, grads)
            grads["w"] = (
                grads["w"].at[1].add(jnp.where(bad[at] & (leaf == 0), jnp.nan, 0))
            )
            grads["b"] = grads["b"] + jnp.where(bad[at] & (leaf == 1), jnp.inf, 0)
            updates, new = tx.update(grads, state, params)
            moved = gradtx.apply_updates(params, updates)
            now = jax.tree.map(
                lambda a, b: jnp.where(absent[at], a, b), (params, state), (moved, new)
            )
            return now, _fast(now[0])

        return jax.lax.scan(call, (start, tx.init(start)), jnp.arange(CALLS))

    return run


def _flags(calls):
    return np.isin(np.arange(CALLS), calls)


def _check(outer, inner, whole):
    tx = _made(outer, inner, whole)
    names = {outer, inner}
    run = _run(tx, "loss_scale" in names, "lookahead" in names)
    lanes = [(_flags(calls), _flags(()), leaf) for calls in BAD for leaf in (0, 1)]
    lanes += [(_flags(()), _flags(calls), 0) for calls in BAD]
    columns = (jnp.asarray(np.stack(column)) for column in zip(*lanes, strict=True))
    (params, state), path = jax.vmap(run)(*columns)
    # what is in the middle of a window is no harm
    sums = () if whole or outer != "accumulate" else ("acc_grads",)
    kept = [
        f.value
        for f in fields(state)
        if f.role is Role.PER_PARAM and f.name not in sums
    ]
    for leaf in jax.tree.leaves((params, kept)):
        assert np.isfinite(leaf).all()
    path = np.asarray(path["w"])
    for lane, (bad, absent, _) in enumerate(lanes):
        last = max(np.nonzero(bad | absent)[0], default=0)
        if last + 4 < CALLS:  # a window of two, and a step after it
            assert (path[lane, last] != path[lane, -1]).all(), "training stands still"
    if not whole and outer not in KEEPERS:
        return
    first_of_absent = 2 * len(BAD)
    for index, calls in enumerate(BAD):
        if "roll_back" in names and len(calls) > 1:
            continue  # two in a row go back, which leaving out does not
        for leaf in map(np.asarray, jax.tree.leaves(params)):
            wanted = leaf[first_of_absent + index].tobytes()
            assert leaf[2 * index].tobytes() == wanted, calls
            assert leaf[2 * index + 1].tobytes() == wanted, calls


@pytest.mark.parametrize(("outer", "inner"), sorted(IMPOSSIBLE))
def test_pairs_that_cannot_work_are_no_optimizer(outer, inner):
    with pytest.raises(gradtx.ArgumentError, match=r"Put|Leave out|single"):
        _made(outer, inner, whole=False)


@pytest.mark.parametrize(("outer", "inner", "whole"), SAMPLE)
def test_a_nan_anywhere_leaves_no_trace(outer, inner, whole):
    _check(outer, inner, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("outer", "inner", "whole"), PAIRS)
def test_a_nan_anywhere_leaves_no_trace_in_any_pair(outer, inner, whole):
    _check(outer, inner, whole)
