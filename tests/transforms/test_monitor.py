"""Measurements on the way: right values, one structure from init on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0]), "n": jnp.arange(2)}
ZERO0 = np.zeros(2, jax.dtypes.float0)


def _grads(scale):
    return {"w": jnp.array([3.0, 4.0]) * scale, "n": ZERO0}


def _types(tree):
    return jax.tree.map(jax.typeof, tree)


MEASURES = {
    "norm": gradtx.global_norm,
    "largest": gradtx.measure_with_ema(lambda u: jnp.max(u["w"]), 0.5),
    "clipped": gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 7, 0.5),
    "momentum": gradtx.trace(0.9),
}


def test_snapshot_keeps_the_updates_of_its_place_in_the_chain():
    tx = gradtx.chain(
        gradtx.scale(2.0), gradtx.snapshot("norm", gradtx.global_norm), gradtx.clip(1.0)
    )
    state = tx.init(PARAMS)
    assert state.snapshot.measurement["norm"].item() == 0.0
    updates, state = tx.update(_grads(1.0), state)
    assert state.snapshot.measurement["norm"].item() == 10.0
    np.testing.assert_array_equal(updates["w"], 1.0)


def test_snapshot_of_whole_updates():
    tx = gradtx.snapshot("seen", lambda u: u)
    _, state = tx.update(_grads(1.0), tx.init(PARAMS))
    np.testing.assert_array_equal(state.measurement["seen"]["w"], [3.0, 4.0])


def test_monitor_measures_like_its_measures_alone():
    tx = gradtx.monitor(MEASURES)
    state = tx.init(PARAMS)
    momentum = np.zeros(2)
    for scale in (1.0, 2.0, 1.0):
        g = _grads(scale)
        updates, state = tx.update(g, state, PARAMS)
        assert updates is g
        momentum = 0.9 * momentum + np.array([3.0, 4.0]) * scale
    found = state.measurements
    assert found["norm"].item() == 5.0
    # weights 1/7, 2/7, 4/7 of values 4, 8, 4 and of 0, 1, 0; float32
    np.testing.assert_allclose(found["largest"], 36 / 7, rtol=1e-6)
    np.testing.assert_allclose(found["clipped"], 2 / 7, rtol=1e-6)
    np.testing.assert_allclose(found["momentum"]["w"], momentum, rtol=1e-6)


def test_means_equal_optax_over_200_steps(lenient):
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(200, 3)), jnp.float32)

    def path(lib):
        mean = lib.measure_with_ema(jnp.max, 0.9)
        tx = lib.monitor({"max": mean})
        state, made = tx.init(grads[0]), []
        for g in grads:
            _, state = jax.jit(tx.update)(g, state)
            made.append(state.measurements["max"])
        return np.array(made)

    # optax's bias correction `1 − 0.9^t` in float32 is off by 1e-6 at t = 1
    np.testing.assert_allclose(path(gradtx), path(optax), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("param", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("grad", [jnp.bfloat16, jnp.float32])
def test_state_can_be_carried_from_init_on(param, grad):
    params = {"w": PARAMS["w"].astype(param), "n": PARAMS["n"]}
    tx = gradtx.chain(
        gradtx.snapshot("max", lambda u: jnp.max(u["w"])), gradtx.monitor(MEASURES)
    )

    def step(state, scale):
        g = {"w": (jnp.array([3.0, 4.0]) * scale).astype(grad), "n": ZERO0}
        return tx.update(g, state, params)[1], None

    state, _ = jax.lax.scan(step, tx.init(params), jnp.ones(3))
    assert _types(state) == _types(tx.init(params))
    assert state.monitor.measurements["norm"].item() == 5.0


def test_extra_arguments_reach_measures():
    @gradtx.transformation
    def times(default=0.0):
        def update(updates, state, params=None, *, value=default):
            return updates["w"][0] * value, state

        return gradtx.identity().init, update

    tx = gradtx.monitor({"scaled": times()})
    g = {"w": jnp.array([3.0, 4.0])}
    _, state = tx.update(g, tx.init(g), g, value=2.0)
    assert state.measurements["scaled"].item() == 6.0


def test_measurement_of_another_shape_is_refused():
    tx = gradtx.snapshot("seen", lambda u: u)
    with pytest.raises(gradtx.ShapeError, match=r"snapshot: seen: expected \(2,\)"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(2)))
    with pytest.raises(gradtx.TreeMismatchError, match="seen"):
        tx.update({"a": jnp.ones(3)}, tx.init({"b": jnp.ones(3)}))


def test_what_is_no_measure_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="monitor: expected a transf"):
        gradtx.monitor({"x": 3})  # pyright: ignore[reportArgumentType]


def test_each_device_of_a_shard_map_may_measure_for_itself():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    tx = gradtx.chain(
        gradtx.snapshot("norm", gradtx.global_norm),
        gradtx.monitor({"mean": gradtx.measure_with_ema(gradtx.global_norm, 0.5)}),
    )

    def run(g):
        step = lambda state, _: (tx.update(g, state)[1], None)
        state, _ = jax.lax.scan(step, tx.init(g), length=2)
        return (
            state.snapshot.measurement["norm"][None],
            state.monitor.measurements["mean"][None],
        )

    spec = jax.P("data")
    mapped = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=(spec, spec))
    for made in jax.jit(mapped)(jnp.arange(8.0)):
        np.testing.assert_allclose(made, jnp.arange(8.0), rtol=1e-6)
