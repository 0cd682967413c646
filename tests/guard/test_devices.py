"""Devices decide together: one that is hurt makes all leave the step out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradtx
from tests.distributed._replicas import (
    DEVICES,
    assert_replicas_equal,
    mesh,
    spread,
)

PARAMS = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([0.5])}
STEPS = 6
POLICY = {
    "sigmas": 50.0,
    "warm_up": 2,
    "back_off": 0.5,
    "roll_back_after": 2,
    "snapshot_every": 2,
}


def _grads():
    """Return gradients of each step and device; one device is hurt in two steps."""
    draw = np.random.default_rng(0)
    grads = {k: draw.normal(size=(STEPS, DEVICES, *p.shape)) for k, p in PARAMS.items()}
    grads["w"][3, 5, 1] = np.nan
    grads["b"][4, 0, 0] = np.inf
    return jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)


def _losses():
    losses = np.linspace(1.0, 2.0, DEVICES)[None] + np.zeros((STEPS, 1))
    losses[5, 7] = np.nan
    return jnp.asarray(losses, jnp.float32)


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("pmap", "inside"),
        ("shard_map", "inside"),
        ("shard_map", "before"),
        ("shard_map unchecked", "before"),
    ],
)
def test_one_hurt_replica_makes_all_skip_and_go_back(mode, where):
    mean, momentum = gradtx.pmean_gradients("data"), gradtx.trace(0.9)
    if where == "before":
        tx = gradtx.chain(mean, gradtx.guarded(momentum, axis_name="data", **POLICY))
    else:
        inner = gradtx.chain(mean, momentum)
        tx = gradtx.guarded(inner, axis_name="data", **POLICY)

    def run(grads, losses):
        def step(carry, given):
            params, state = carry
            updates, state = tx.update(given[0], state, params, value=given[1])
            params = gradtx.apply_updates(params, updates)
            params = gradtx.guard.restored(params, state)
            return (params, state), params["w"]

        first = (PARAMS, tx.init(PARAMS))
        return jax.lax.scan(step, first, (grads, losses))

    if mode == "pmap":
        mapped = jax.pmap(run, "data", in_axes=1, out_axes=0)
        (params, state), seen = mapped(_grads(), _losses())
        state = jax.tree.map(lambda x: x[0], state)
        seen = seen[0]
    else:
        one = lambda tree: jax.tree.map(lambda x: x[:, 0], tree)
        mapped = jax.shard_map(
            lambda *given: run(*map(one, given)),
            mesh=mesh(),
            in_specs=P(None, "data"),
            out_specs=P(),
            check_vma=mode == "shard_map",
        )
        (params, state), seen = jax.jit(mapped)(_grads(), _losses())
    assert_replicas_equal(params)
    assert_replicas_equal(state)
    guard = state if where == "inside" else state.guarded
    assert (int(guard.bad_gradients), int(guard.bad_losses)) == (2, 1)
    assert (int(guard.roll_backs), float(guard.factor)) == (1, 0.125)
    assert np.isfinite(seen).all()
    # two good steps are kept, the third is lost with what went back to before it
    np.testing.assert_array_equal(seen[3], seen[2])
    np.testing.assert_array_equal(seen[4], seen[1])


def test_arrays_spread_over_a_mesh_are_guarded_as_wholes():
    tx = gradtx.guarded(gradtx.trace(0.9), **POLICY)
    params = {"w": jnp.ones((DEVICES, 2)), "b": jnp.ones(3)}
    rows = {"w": spread("data"), "b": spread()}

    def run(params):
        state = tx.init(params)
        step = jax.jit(tx.update)
        made = []
        for g in (1.0, 2.0, jnp.nan, jnp.nan):
            grads = {"w": params["w"].at[3, 1].set(g), "b": params["b"]}
            updates, state = step(grads, state, params)
            params = gradtx.guard.restored(gradtx.apply_updates(params, updates), state)
            made.append(params)
        return made, state

    alone, state = run(params)
    spread_out, other = run(jax.device_put(params, rows))
    assert int(state.roll_backs) == int(other.roll_backs) == 1
    for a, b in zip(*map(jax.tree.leaves, (alone, spread_out)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert other.snapshot.params["w"].sharding.is_equivalent_to(rows["w"], 2)


def test_each_device_may_decide_for_itself():
    tx = gradtx.guarded(gradtx.adam(1.0), **POLICY)
    g = jnp.ones(DEVICES).at[3].set(jnp.nan)

    def run(g):
        def step(state, _):
            updates, state = tx.update(g, state, g)
            return state, updates

        state, updates = jax.lax.scan(step, tx.init(jnp.ones_like(g)), length=2)
        return updates, state.skipped[None], state.roll_backs[None]

    out = (P(None, "data"), P("data"), P("data"))
    mapped = jax.shard_map(run, mesh=mesh(), in_specs=P("data"), out_specs=out)
    updates, skipped, back = jax.jit(mapped)(g)
    assert skipped.tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
    assert back.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    expected = -np.ones(DEVICES)
    expected[3] = 0
    np.testing.assert_allclose(updates[0], expected, rtol=1e-6)


def test_members_of_a_population_are_guarded_apart():
    tx = gradtx.guarded(gradtx.sgd(1.0), roll_back_after=1, back_off=0.5)

    def run(g):
        state = tx.init(jnp.ones(1))
        updates, state = tx.update(jnp.full(1, g), state, jnp.full(1, 3.0))
        return updates[0], state.factor

    made, factor = jax.jit(jax.vmap(run))(jnp.array([1.0, jnp.nan]))
    assert (made.tolist(), factor.tolist()) == ([-1.0, -2.0], [1.0, 0.5])
