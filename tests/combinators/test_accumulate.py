"""Gradients summed over calls; the inner optimizer at work only once in a while."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0]), "n": jnp.arange(2)}
ZERO0 = np.zeros(2, jax.dtypes.float0)


def _grads(i):
    return {"w": jnp.array([1.0, 2.0]) * (i + 1), "n": ZERO0}


def _run(tx, grads, params=None, **extra):
    params = PARAMS if params is None else params
    state = tx.init(params)
    made = []
    for g in grads:
        updates, state = tx.update(g, state, params, **extra)
        made.append(updates)
    return made, state


def test_updates_once_with_the_mean():
    inner = gradtx.adamw(0.1)
    made, state = _run(gradtx.accumulate(inner, 3), [_grads(i) for i in range(6)])
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(made[i]["w"], 0.0)
    means = [{"w": jnp.array([2.0, 4.0]) * m, "n": ZERO0} for m in (1.0, 2.5)]
    direct, inner_state = _run(inner, means)
    for got, expected in zip((made[2], made[5]), direct, strict=True):
        np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-6)
    counts = state.inner_opt_state.scale_by_adam.count, state.gradient_step
    assert [int(c) for c in counts] == [2, 2]
    assert int(inner_state.scale_by_adam.count) == 2
    assert int(state.mini_step) == 0


def test_numbers_equal_optax_multisteps(lenient):
    grads = [{"w": _grads(i)["w"]} for i in range(8)]
    params = {"w": PARAMS["w"]}
    ours, _ = _run(gradtx.accumulate(gradtx.sgd(0.1, 0.9), 4), grads, params)
    theirs, _ = _run(optax.MultiSteps(optax.sgd(0.1, 0.9), 4), grads, params)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u["w"], v["w"], rtol=1e-6)


def test_inner_state_stands_still_between_updates():
    tx = gradtx.accumulate(gradtx.chain(gradtx.add_noise(0.1, 0.5, key=0)), 3)
    _, state = _run(tx, [_grads(0)] * 2)
    before = tx.init(PARAMS).inner_opt_state
    for a, b in zip(
        *map(jax.tree.leaves, (state.inner_opt_state, before)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_inner_optimizer_runs_only_when_it_must():
    calls = []

    @gradtx.transformation
    def counting():
        def update(updates, state, params=None):
            jax.debug.callback(lambda: calls.append(1))
            return updates, state

        return gradtx.identity().init, update

    _run(gradtx.accumulate(counting(), 4), [_grads(0)] * 8)
    jax.effects_barrier()
    assert len(calls) == 2


def test_nan_stays_in_its_window():
    bad = {"w": jnp.array([jnp.nan, 1.0]), "n": ZERO0}
    made, _ = _run(
        gradtx.accumulate(gradtx.sgd(1.0), 2), [bad, bad, _grads(0), _grads(0)]
    )
    np.testing.assert_array_equal(made[0]["w"], 0.0)
    assert np.isnan(made[1]["w"][0])
    np.testing.assert_array_equal(made[3]["w"], [-1.0, -2.0])


def test_sum_instead_of_mean_and_schedule_of_windows():
    window = lambda step: jnp.where(step == 0, 1, 2)
    made, state = _run(
        gradtx.accumulate(gradtx.sgd(1.0), window, mean=False), [_grads(0)] * 3
    )
    np.testing.assert_array_equal([m["w"][0] for m in made], [-1.0, 0.0, -2.0])
    assert int(state.gradient_step) == 2


def test_low_precision_gradients_sum_in_float32():
    g = {"w": jnp.full(2, 6e4, jnp.float16)}
    params = {"w": jnp.zeros(2, jnp.float16)}
    made, state = _run(gradtx.accumulate(gradtx.scale(1.0), 4), [g] * 4, params)
    assert state.acc_grads["w"].dtype == jnp.float32
    np.testing.assert_array_equal(made[-1]["w"], g["w"])
    _, state = _run(
        gradtx.accumulate(gradtx.sgd(1.0), 4, accumulator_dtype="float16"), [g], params
    )
    assert state.acc_grads["w"].dtype == jnp.float16


def test_runs_under_jit_scan_and_vmap():
    tx = gradtx.accumulate(gradtx.sgd(0.1, momentum=0.9), 2)
    grads = jnp.arange(12.0).reshape(6, 2)

    def step(state, g):
        updates, state = tx.update(g, state)
        return state, updates

    _, scanned = jax.lax.scan(step, tx.init(grads[0]), grads)
    looped, _ = _run(tx, list(grads), grads[0])
    np.testing.assert_allclose(scanned, jnp.stack(looped), rtol=1e-6)
    many = jax.vmap(lambda gs: jax.lax.scan(step, tx.init(gs[0]), gs)[1])
    np.testing.assert_allclose(many(jnp.stack([grads] * 2))[1], scanned, rtol=1e-6)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True])
def test_window_must_be_a_positive_integer(bad):
    with pytest.raises(gradtx.ArgumentError, match="every must be an integer of at le"):
        gradtx.accumulate(gradtx.sgd(0.1), bad)
