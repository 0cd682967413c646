"""Branches around a link: what runs, what rests, what the types are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

ZERO0 = np.zeros(2, jax.dtypes.float0)
PARAMS = {"w": jnp.array([1.0, -2.0]), "n": jnp.arange(2)}
GRADS = {"w": jnp.array([0.5, 3.0]), "n": ZERO0}


def _third(step, **extra):
    return step % 3 == 0


@pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])
def test_numbers_equal_optax(name, lenient):
    params = {"w": jnp.array([1.0, -2.0])}
    rng = np.random.default_rng(0)
    grads = jnp.asarray(rng.normal(size=(200, 2)), jnp.float32)

    def path(library):
        tx = getattr(library, name)(library.sgd(0.1, momentum=0.9), _third)

        def step(state, g):
            updates, state = tx.update({"w": g}, state, params)
            return state, updates["w"]

        return jax.jit(lambda: jax.lax.scan(step, tx.init(params), grads))()

    ours, theirs = path(gradtx), path(optax)
    # the same operations on float32, possibly fused in another order
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    assert int(ours[0].step) == int(theirs[0].step) == 200
    assert type(ours[0])._fields == type(theirs[0])._fields


def test_rest_passes_updates_or_zeros_and_keeps_the_state():
    for wrap, kept in (
        (gradtx.conditionally_transform, [0.5, 3.0]),
        (gradtx.conditionally_mask, [0.0, 0.0]),
    ):
        tx = wrap(gradtx.trace(0.9), lambda step: step == 0)
        _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        updates, after = tx.update(GRADS, state, PARAMS)
        np.testing.assert_array_equal(updates["w"], kept)
        assert updates["n"] is ZERO0
        assert int(after.step) == 2
        np.testing.assert_array_equal(
            after.inner_state.trace["w"], state.inner_state.trace["w"]
        )


def test_inner_is_not_computed_at_rest():
    calls = []

    @gradtx.transformation
    def counting():
        def update(updates, state, params=None):
            jax.debug.callback(lambda: calls.append(1))
            return updates, state

        return gradtx.identity().init, update

    tx = gradtx.conditionally_mask(counting(), _third)
    state = tx.init(PARAMS)
    for _ in range(7):
        _, state = tx.update(GRADS, state, PARAMS)
    jax.effects_barrier()
    assert len(calls) == 3


def test_extra_arguments_reach_the_condition_only_if_asked():
    def low(step, loss):
        return loss < 1.0

    tx = gradtx.conditionally_mask(gradtx.scale(2.0), low, forward_extra_args=True)
    for loss, expected in ((0.5, [1.0, 6.0]), (1.5, [0.0, 0.0])):
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, loss=loss)
        np.testing.assert_array_equal(updates["w"], expected)
    silent = gradtx.conditionally_mask(gradtx.scale(2.0), lambda step: step < 1)
    updates, _ = silent.update(GRADS, silent.init(PARAMS), PARAMS, loss=9.0)
    np.testing.assert_array_equal(updates["w"], [1.0, 6.0])


def test_extra_arguments_reach_the_inner_link():
    @gradtx.transformation
    def by_value():
        def update(updates, state, params=None, *, value):
            return jax.tree.map(lambda g: g * value, updates), state

        return gradtx.identity().init, update

    tx = gradtx.conditionally_transform(by_value(), _third)
    g = {"w": GRADS["w"]}
    updates, _ = tx.update(g, tx.init(g), None, value=jnp.array(2.0))
    np.testing.assert_array_equal(updates["w"], [1.0, 6.0])


def test_a_schedule_is_a_condition_that_can_be_written_down():
    until = gradtx.piecewise_constant_schedule(1.0, {2: 0.0})
    tx = gradtx.conditionally_mask(gradtx.scale(1.0), until)
    assert gradtx.build(gradtx.describe(tx)) == tx
    state, made = tx.init(PARAMS), []
    for _ in range(4):
        updates, state = tx.update(GRADS, state, PARAMS)
        made.append(updates["w"][0].item())
    assert made == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: gradtx.conditionally_transform(tx, _third),
        lambda tx: gradtx.conditionally_mask(tx, _third),
        lambda tx: gradtx.apply_if_finite(tx, 2),
    ],
)
def test_foreign_links_whose_types_drift_can_be_carried(wrap, lenient):
    tx = wrap(optax.adam(1e-3))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    grads = {"w": jnp.ones(3, jnp.float32)}

    def step(state, _):
        updates, state = tx.update(grads, state, params)
        return state, updates

    # optax's own wrappers raise here: bfloat16 moments become float32
    state, updates = jax.lax.scan(step, tx.init(params), length=4)
    assert updates["w"].dtype == jnp.float32
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, tx.init(params))


def test_averaging_link_inside_shard_map_may_rest():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    tx = gradtx.conditionally_mask(gradtx.pmean_gradients("data"), _third)

    def run(g):
        state, made = tx.init(g), []
        for _ in range(2):
            updates, state = tx.update(g, state)
            made.append(updates)
        return jnp.stack(made)

    spec = jax.P(None, "data")
    mapped = jax.shard_map(run, mesh=mesh, in_specs=jax.P("data"), out_specs=spec)
    made = jax.jit(mapped)(jnp.arange(8.0))
    np.testing.assert_allclose(made, [[3.5] * 8, [0.0] * 8])
