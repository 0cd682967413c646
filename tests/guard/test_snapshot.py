"""A roll-back brings back the bits of a good step, in any loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import Role
from gradtx.core import fields
from gradtx.guard import restored

PARAMS = {"w": jnp.array([0.1, -0.2, 0.3]), "b": jnp.full(2, 1.7, jnp.bfloat16)}
TX = gradtx.guarded(gradtx.adamw(0.1), roll_back_after=2, snapshot_every=2)


def _bytes(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@jax.jit
def _step(params, state, scale):
    grads = jax.tree.map(lambda p: p * scale.astype(p.dtype), params)
    updates, state = TX.update(grads, state, params)
    params = gradtx.apply_updates(params, updates)
    return params, restored(params, state), state


def _run(scales, params=PARAMS, state=None):
    state = TX.init(params) if state is None else state
    near, trail = params, [(params, state)]
    for scale in scales:
        near, params, state = _step(params, state, jnp.asarray(scale))
        trail.append((params, state))
    return near, trail


def test_two_bad_steps_bring_back_the_last_snapshot():
    near, trail = _run([1.0, 0.5, 2.0, 1.0, np.nan, np.nan, 1.0])
    # one is taken at the start, and at the third good step of what it begins with
    saved, after = trail[2], trail[6]
    assert _bytes(after[0]) == _bytes(saved[0]) != _bytes(trail[5][0])
    assert _bytes(after[1].inner_state) == _bytes(saved[1].inner_state)
    assert bool(after[1].rolled_back)
    assert not bool(trail[7][1].rolled_back)
    assert int(after[1].roll_backs) == 1
    # and the run goes on
    assert _bytes(trail[7][0]) != _bytes(after[0])
    near, _ = _run([np.nan], *trail[5])
    for a, b in zip(jax.tree.leaves(near), jax.tree.leaves(saved[0])):
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=1e-2
        )


def test_parameters_that_became_nan_are_mended_but_never_saved():
    _, trail = _run([1.0])
    params, state = trail[-1]
    broken = params | {"w": params["w"].at[0].set(jnp.nan)}
    _, trail = _run([1.0, 1.0], broken, state)
    assert _bytes(trail[-1][0]) == _bytes(PARAMS)
    # a NaN at a gradient of 0 is not told by the step, but keeps the old snapshot
    tx = gradtx.guarded(gradtx.sgd(0.1), roll_back_after=1, snapshot_every=1)
    _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    _, state = tx.update(jnp.zeros(2), state, jnp.array([jnp.nan, 1.0]))
    assert np.isfinite(state.snapshot.params).all()
    assert (int(state.skipped), int(state.snapshot_age)) == (0, 2)


def test_without_roll_back_nothing_is_kept():
    kept = gradtx.guarded(gradtx.adamw(0.1)).init(PARAMS)
    assert kept.snapshot == ()
    params = {"w": jnp.ones(1)}
    assert restored(params, kept) is params
    size = gradtx.telemetry.state_bytes
    assert size(TX.init(PARAMS)) - size(kept) == size((PARAMS, kept.inner_state))


def test_a_snapshot_is_one_field_for_readers_and_a_tree_for_what_places_it():
    state = TX.init(PARAMS)
    found = {field.path: field for field in fields(state)}
    assert found["snapshot"].role is Role.SAVED
    moments = [x.path for x in found.values() if x.role is Role.PER_PARAM]
    assert moments == ["inner_state.scale_by_adam.mu", "inner_state.scale_by_adam.nu"]
    assert len(gradtx.tree.get_all_with_path(state, "mu")) == 1
    rows = gradtx.summary(TX, PARAMS).rows
    assert [row.path for row in rows if row.role == "saved"] == ["snapshot"]
    places = gradtx.tree_map_params(
        TX, lambda p: "param", state, transform_non_params=lambda x: "other"
    )
    saved = places.snapshot
    assert saved.params == {"w": "param", "b": "param"}
    assert saved.inner_state.scale_by_adam.mu == {"w": "param", "b": "param"}
    assert saved.inner_state.scale_by_adam.count == places.factor == "other"


def test_parameters_and_state_can_be_donated_at_every_step():
    step = jax.jit(lambda p, s, x: _step(p, s, x)[1:], donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = TX.init(params)
    for scale in (1.0, 1.0, np.nan, 1.0, np.nan, np.nan):
        arrays = jax.tree.leaves((params, state))
        owned = {x.unsafe_buffer_pointer() for x in arrays}
        assert len(owned) == len(arrays), "two leaves share a buffer"
        params, state = step(params, state, jnp.asarray(scale))
    assert int(state.roll_backs) == 1


def test_a_guard_of_some_parameters_restores_those():
    guarded = gradtx.guarded(gradtx.sgd(0.1), roll_back_after=1)
    tx = gradtx.partition({"a": guarded, "b": gradtx.sgd(0.1)}, {"w": "a", "b": "b"})
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    state = tx.init(params)
    moved = {"w": jnp.full(2, 5.0), "b": jnp.full(1, 5.0)}
    grads = {"w": jnp.full(2, jnp.nan), "b": jnp.zeros(1)}
    _, state = tx.update(grads, state, moved)
    back = restored(moved, state)
    assert (back["w"].tolist(), back["b"].tolist()) == ([1.0, 1.0], [5.0])


def test_pairs_of_parameters_go_back_together():
    tx = gradtx.guarded(gradtx.lookahead(gradtx.sgd(0.5), 2, 0.5), roll_back_after=1)
    params = gradtx.LookaheadParams.init_synced({"w": jnp.ones(1)})

    def step(carry, g):
        params, state = carry
        updates, state = tx.update({"w": jnp.full(1, g)}, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    first = (params, tx.init(params))
    (params, _), _ = jax.lax.scan(step, first, jnp.array([1.0, 1.0, jnp.nan]))
    assert params.fast["w"].tolist() == params.slow["w"].tolist() == [1.0]


def test_torch_has_no_snapshot():
    entry = {"step": 1.0, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    torch_state = {"state": {0: entry}, "param_groups": [{"params": [0]}]}
    with pytest.raises(gradtx.ArgumentError, match="torch keeps no snapshot"):
        gradtx.interop.from_torch(TX, torch_state, {"w": 0})
