"""Sharpness-aware minimisation, a call per step or all in one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest
from optax import contrib

import gradtx

optax: Any = _optax

START = np.array([1.5, -0.5, 0.25])


def _loss(p):
    return jnp.sum(p["w"] ** 2) + jnp.sum((p["w"] - 1) ** 4)


def _gradient(w):
    return 2 * w + 4 * (w - 1) ** 3


def _make(library, other, **arguments):
    climb = library.chain(other.normalize(), library.sgd(0.1))
    return other.sam(library.sgd(0.01, momentum=0.9), climb, **arguments)


def _run(tx, apply_updates, calls, **extra):
    params = {"w": jnp.asarray(START)}
    state, path = tx.init(params), []
    for _ in range(calls):
        updates, state = tx.update(jax.grad(_loss)(params), state, params, **extra)
        params = apply_updates(params, updates)
        path.append(np.asarray(params["w"]))
    return np.stack(path)


def _truth(steps, climbs):
    """Foret et al. 2020, Algorithm 1, with momentum, from the parameters alone."""
    w, trace, path = START, 0.0, []
    for _ in range(steps):
        q = w
        for _ in range(climbs):
            g = _gradient(q)
            q = q + 0.1 * g / np.linalg.norm(g)
            path.append(q)
        trace = _gradient(q) + 0.9 * trace
        w = w - 0.01 * trace
        path.append(w)
    return np.stack(path)


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("period", [2, 3])
def test_a_call_per_step_is_the_paper_and_optax(period):
    ours = _run(
        _make(gradtx, gradtx, sync_period=period), gradtx.apply_updates, 20 * period
    )
    np.testing.assert_allclose(ours, _truth(20, period - 1), rtol=1e-12)
    theirs = _run(
        _make(optax, contrib, sync_period=period), optax.apply_updates, 20 * period
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("period", [1, 2, 3])
def test_all_in_one_call_is_the_same(period):
    tx = _make(gradtx, gradtx, sync_period=period, opaque_mode=True)
    grad_fn = lambda params, i: jax.grad(_loss)(params)
    ours = _run(tx, gradtx.apply_updates, 20, grad_fn=grad_fn)
    truth = _truth(20, period - 1)[period - 1 :: period]
    np.testing.assert_allclose(ours, truth, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_period_of_one_is_the_outer_optimizer():
    ours = _run(_make(gradtx, gradtx, sync_period=1), gradtx.apply_updates, 20)
    np.testing.assert_allclose(ours, _truth(20, 0), rtol=1e-12)


def test_a_zero_gradient_moves_nothing():
    # COMPATIBILITY.md, section 4, 6: optax's normalize gives NaN
    tx, p = _make(gradtx, gradtx), {"w": jnp.ones(2)}
    state = tx.init(p)
    for _ in range(4):
        updates, state = tx.update({"w": jnp.zeros(2)}, state, p)
        assert updates["w"].tolist() == [0.0, 0.0]


def test_keys_survive_a_reset():
    climb = gradtx.noisy_sgd(0.1, key=jax.random.key(1))
    tx, p = gradtx.sam(gradtx.sgd(0.1), climb), {"w": jnp.ones(2)}
    first = state = tx.init(p)
    for _ in range(2):
        _, state = tx.update(p, state, p)
    assert (state.adv_state[0].rng_key == first.adv_state[0].rng_key).all()


def test_what_is_missing_is_named():
    p = {"w": jnp.ones(2)}
    tx = _make(gradtx, gradtx, opaque_mode=True)
    with pytest.raises(gradtx.MissingArgumentError, match="sam: update needs grad_fn="):
        tx.update(p, tx.init(p), p)
    with pytest.raises(gradtx.ArgumentError, match="sync_period must be"):
        _make(gradtx, gradtx, sync_period=0)
