"""Slow parameters follow fast ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest

import gradtx

optax: Any = _optax


def _loss(p):
    return jnp.sum(p["w"] ** 2) + jnp.sum((p["w"] - 1) ** 4)


def _run(library, steps, **arguments):
    tx = library.lookahead(library.sgd(0.01, momentum=0.9), **arguments)
    params = library.LookaheadParams.init_synced({"w": jnp.array([1.5, -0.5])})
    state = tx.init(params)
    path = []
    for _ in range(steps):
        grads = jax.grad(_loss)(params.fast)
        updates, state = tx.update(grads, state, params)
        params = library.apply_updates(params, updates)
        path.append(np.stack([params.fast["w"], params.slow["w"]]))
    return np.stack(path)


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("period", [1, 5])
def test_100_steps_are_optax_and_the_paper(period, reset):
    arguments = {"sync_period": period, "slow_step_size": 0.25, "reset_state": reset}
    ours = _run(gradtx, 100, **arguments)
    np.testing.assert_allclose(ours, _run(optax, 100, **arguments), rtol=1e-12)
    fast = slow = np.array([1.5, -0.5])
    trace = 0.0
    for t in range(1, 101):
        trace = 2 * fast + 4 * (fast - 1) ** 3 + 0.9 * trace
        fast = fast - 0.01 * trace
        if t % period == 0:
            fast = slow = slow + 0.25 * (fast - slow)
            trace = 0.0 if reset else trace
        np.testing.assert_allclose(ours[t - 1], [fast, slow], rtol=1e-12)


def test_keys_survive_a_reset():
    # COMPATIBILITY.md, section 4, 9: optax selects by arithmetic, which keys have not
    tx = gradtx.lookahead(
        gradtx.noisy_sgd(0.1, key=jax.random.key(1)), 2, 0.5, reset_state=True
    )
    params = gradtx.LookaheadParams.init_synced({"w": jnp.ones(2)})
    first = state = tx.init(params)
    for _ in range(2):
        _, state = tx.update({"w": jnp.ones(2)}, state, params)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, state))


def test_the_pair_can_be_donated_and_plain_parameters_are_refused():
    params = gradtx.LookaheadParams.init_synced({"w": jnp.ones(2)})
    tx = gradtx.lookahead(gradtx.adam(0.1), 3, 0.5)

    def step(params, state):
        updates, state = tx.update({"w": jnp.ones(2)}, state, params)
        return gradtx.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params, _ = step(params, tx.init(params))
    assert jnp.isfinite(params.fast["w"]).all()
    with pytest.raises(gradtx.ArgumentError, match="LookaheadParams, got dict"):
        tx.update({"w": jnp.ones(2)}, tx.init(params), {"w": jnp.ones(2)})
    with pytest.raises(gradtx.ArgumentError, match="sync_period must be"):
        gradtx.lookahead(gradtx.adam(0.1), 0, 0.5)


@pytest.mark.parametrize("params", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("grads", ["float16", "bfloat16", "float32"])
def test_types_are_a_fixed_point(params, grads):
    pair = gradtx.LookaheadParams.init_synced({"w": jnp.ones(3, params)})
    tx = gradtx.lookahead(gradtx.adam(0.1), 3, 0.5, reset_state=True)
    state = tx.init(pair)
    updates, after = jax.eval_shape(tx.update, {"w": jnp.ones(3, grads)}, state, pair)
    types = lambda tree: jax.tree.map(jax.typeof, tree)
    assert types(after) == types(jax.eval_shape(lambda: state))
    assert types(gradtx.apply_updates(pair, gradtx.tree.zeros_like(pair))) == types(
        pair
    )
    assert updates.slow["w"].dtype == jnp.dtype(params)
