"""Random sequences of faults: the guard does what a model in plain Python does.

`python -m pytest -m slow tests/guard -k campaign` tries 100,000 sequences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.guard import restored
from tests.guard._model import SIZE, Model, faults, flat, inner, tree

STEPS = 32
FULL = {
    "sigmas": 4.0,
    "watch": "norm",
    "window": 8,
    "warm_up": 3,
    "back_off": 0.5,
    "smallest": 0.125,
    "recover_after": 3,
    "roll_back_after": 3,
    "snapshot_every": 4,
    "raise_after": 6,
}
PLAIN = FULL | {"watch": "loss", "roll_back_after": None, "back_off": 1.0}
PLAIN |= {"raise_after": 4}
#: How `inner` runs, and how sequences are run.
WAYS = {
    "twice": (FULL, True, jax.lax.map),
    "once": (PLAIN, False, jax.lax.map),
    "vmap": (FULL | {"watch": "loss"}, True, jax.lax.map),
}


@functools.cache
def _runner(way):
    """Return the compiled function from faults to all that is seen, step by step."""
    policy, twice, over = WAYS[way]
    tx = gradtx.guarded(inner(), recompute=twice, **policy)

    def step(carry, given):
        params, state = carry
        grads, value, poison = given
        updates, state = tx.update(
            tree(grads), state, params, value=value, poison=poison
        )
        clean = jnp.all(jnp.isfinite(jnp.concatenate(jax.tree.leaves(updates))))
        params = restored(gradtx.apply_updates(params, updates), state)
        return (params, state), flat(params, state) | {"clean": clean}

    def run(given):
        params = tree(jnp.ones(SIZE))
        return jax.lax.scan(step, (params, tx.init(params)), given)[1]

    if way == "vmap":
        return policy, jax.jit(jax.vmap(run))
    return policy, jax.jit(lambda given: over(run, given))


def _compare(way, seed, sequences):
    policy, run = _runner(way)
    given = faults(seed, sequences, STEPS)
    got = jax.device_get(run(given))
    assert got.pop("clean").all(), "an update is not finite"
    reached = np.zeros(3, int)
    ties = 0
    for n in range(sequences):
        model = Model(policy)
        for t in range(STEPS):
            model.step(*(x[n, t] for x in given))
            if model.tie:
                ties += 1
                break
            for name, wanted in model.seen().items():
                have = got[name][n, t]
                same = np.asarray(wanted).astype(have.dtype).tobytes() == have.tobytes()
                assert same, f"{way} {seed}: sequence {n}, step {t}: {name}"
        reached += [model.roll_backs > 1, model.exhausted, model.kinds[3] > 0]
    assert ties <= 0.01 * sequences
    return reached


@pytest.mark.parametrize("way", WAYS)
def test_campaign_sample(way):
    reached = _compare(way, 0, 250)
    needed = reached if WAYS[way][0]["roll_back_after"] else reached[1:]
    assert (needed > 10).all(), "the faults must lead everywhere"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_campaign(way):
    for seed in range(1, 36):
        _compare(way, seed, 1000)
