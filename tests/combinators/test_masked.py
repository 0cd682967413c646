"""Some leaves transformed, the others passed through or kept still."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([3.0]), "d": None}}
MASK = {"a": True, "b": False}


def test_hidden_leaves_keep_their_gradient_and_have_no_state():
    tx = gradtx.masked(gradtx.adam(0.1), MASK)
    state = tx.init(PARAMS)
    moments = state.inner_state.scale_by_adam
    assert jax.tree.leaves(moments.mu) == [moments.mu["a"]]
    assert moments.mu["b"]["c"] == gradtx.MaskedNode()
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert updates["b"]["c"] == PARAMS["b"]["c"]
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-6)


def test_numbers_equal_optax(lenient):
    ours = gradtx.masked(gradtx.adamw(0.1), {"a": False, "b": True})
    theirs = optax.masked(optax.adamw(0.1), {"a": False, "b": True})
    s, t = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(4):
        u, s = ours.update(PARAMS, s, PARAMS)
        v, t = theirs.update(PARAMS, t, PARAMS)
        # optax's bias correction is off by 1e-5 in float32
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), u, v)


def test_mask_function_sees_updates_where_there_are_no_parameters():
    tx = gradtx.masked(gradtx.scale(2.0), gradtx.path_matches("^a"))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["a"], [2.0, 4.0])
    np.testing.assert_array_equal(updates["b"]["c"], [3.0])


def test_extra_arguments_are_masked_on_request():
    seen = []

    @gradtx.transformation
    def listening():
        def update(updates, state, params=None, *, weights):
            seen.append(weights)
            return updates, state

        return gradtx.identity().init, update

    for request in (False, True):
        tx = gradtx.masked(listening(), MASK, mask_compatible_extra_args=request)
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, weights=PARAMS)
    assert seen[0]["b"]["c"] is PARAMS["b"]["c"]
    assert seen[1]["b"]["c"] == gradtx.MaskedNode()


def test_masks_nest():
    inner = gradtx.masked(gradtx.scale(5.0), gradtx.path_matches("c$"))
    tx = gradtx.masked(inner, {"a": False, "b": True})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["b"]["c"], [15.0])
    np.testing.assert_array_equal(updates["a"], PARAMS["a"])


def test_state_is_a_fixed_point():
    tx = gradtx.masked(gradtx.adam(0.1), MASK)
    state = tx.init(PARAMS)
    _, after = tx.update(PARAMS, state, PARAMS)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, after)


def test_frozen_leaves_do_not_move():
    tx = gradtx.chain(
        gradtx.adamw(0.1, weight_decay=0.5), gradtx.freeze({"a": True, "b": False})
    )
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(PARAMS, state, params)
        params = gradtx.apply_updates(params, updates)
    np.testing.assert_array_equal(params["a"], PARAMS["a"])
    assert float(params["b"]["c"][0]) != 3.0


def test_mask_that_does_not_fit_is_named_with_its_link():
    tx = gradtx.masked(gradtx.scale(1.0), {"z": True})
    with pytest.raises(gradtx.ArgumentError, match="mask must have the structure"):
        tx.init(PARAMS)
