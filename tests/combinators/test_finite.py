"""Gradients that are not finite are left out, and counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(3, jnp.bfloat16)}


def _grads(value=1.0):
    return {"w": jnp.array([value, 1.0]), "b": jnp.ones(3, jnp.bfloat16)}


def _run(tx, values) -> Any:
    state, made = tx.init(PARAMS), []
    for value in values:
        updates, state = tx.update(_grads(value), state, PARAMS)
        made.append((updates["w"], updates["b"]))
    return made, state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_gradient_moves_nothing_and_is_counted(bad):
    tx = gradtx.apply_if_finite(gradtx.sgd(1.0, momentum=0.9), 3)
    clean, expected = _run(tx, [1.0, 1.0])
    made, state = _run(tx, [1.0, bad, 1.0])
    for leaf in made[1]:
        np.testing.assert_array_equal(leaf.astype(jnp.float32), 0.0)
    np.testing.assert_array_equal(made[2][0], clean[1][0])
    for a, b in zip(
        *(jax.tree.leaves(s.inner_state) for s in (state, expected)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert int(state.total_notfinite) == 1
    assert int(state.notfinite_count) == 0
    assert bool(state.last_finite)


def test_counts_equal_optax_until_errors_are_too_many(lenient):
    values = [1.0, np.nan, np.inf, 2.0, np.nan, np.nan, 1.0]
    ours, mine = _run(gradtx.apply_if_finite(gradtx.sgd(1.0), 2), values)
    theirs, its = _run(optax.apply_if_finite(optax.sgd(1.0), 2), values)
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert mine._fields == its._fields
    assert [int(x) for x in mine[:3]] == [int(x) for x in its[:3]]


def test_one_error_too_many_is_applied_and_counting_starts_anew():
    tx = gradtx.apply_if_finite(gradtx.sgd(1.0), 2)
    made, state = _run(tx, [np.nan] * 7)
    applied = [bool(jnp.isnan(w[0])) for w, _ in made]
    assert applied == [False, False, True, False, False, True, False]
    assert int(state.notfinite_count) == 1
    assert int(state.total_notfinite) == 7


def test_devices_decide_together():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    tx = gradtx.apply_if_finite(gradtx.scale(2.0), 9, axis_name="data")
    g = jnp.ones(8).at[3].set(jnp.nan)

    def run(g):
        updates, state = tx.update(g, tx.init(g))
        return updates, state.total_notfinite

    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=jax.P("data"), out_specs=(jax.P("data"), jax.P())
    )
    updates, total = jax.jit(mapped)(g)
    np.testing.assert_array_equal(updates, 0.0)
    assert int(total) == 1
    np.testing.assert_array_equal(jax.jit(mapped)(jnp.ones(8))[0], 2.0)


def test_empty_trees_are_finite():
    tx = gradtx.apply_if_finite(gradtx.adam(1e-3), 1)
    _, state = tx.update({}, tx.init({}), {})
    assert bool(state.last_finite)


def test_negative_count_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="apply_if_finite: max_consec"):
        gradtx.apply_if_finite(gradtx.sgd(1.0), -1)


def test_each_device_may_decide_for_itself():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    tx = gradtx.apply_if_finite(gradtx.adam(1.0), 9)
    g = jnp.ones(8).at[3].set(jnp.nan)

    def run(g):
        def step(state, _):
            updates, state = tx.update(g, state, g)
            return state, updates

        state, updates = jax.lax.scan(step, tx.init(g), length=2)
        return updates, state.total_notfinite[None]

    out = (jax.P(None, "data"), jax.P("data"))
    mapped = jax.shard_map(run, mesh=mesh, in_specs=jax.P("data"), out_specs=out)
    updates, total = jax.jit(mapped)(g)
    expected = -np.ones(8)
    expected[3] = 0
    np.testing.assert_allclose(updates, [expected] * 2, rtol=1e-6)
    assert total.tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
