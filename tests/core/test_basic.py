"""The smallest transformations."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0])}


def test_identity_returns_the_same_objects():
    tx = gradtx.identity()
    state = tx.init(PARAMS)
    assert tx.update(PARAMS, state) == (PARAMS, state)


def test_set_to_zero_cleans_nan_and_keeps_types():
    tx = gradtx.set_to_zero()
    g = {
        "a": jnp.array([jnp.nan, 1], jnp.bfloat16),
        "n": np.zeros(2, jax.dtypes.float0),
        "z": None,
    }
    out, _ = tx.update(g, tx.init(g))
    assert out["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(out["a"], 0)
    assert out["n"] is g["n"]


def test_stateless_gets_whole_trees():
    tx = gradtx.stateless(lambda g, p: jax.tree.map(lambda a, b: a * b, g, p))
    out, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(out["w"], [1.0, 4.0])


def test_stateless_with_tree_map_gets_leaves():
    tx = gradtx.stateless_with_tree_map(lambda g, p: g if p is None else g + p)
    np.testing.assert_array_equal(
        tx.update(PARAMS, tx.init(PARAMS))[0]["w"], PARAMS["w"]
    )
    out, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(out["w"], 2 * PARAMS["w"])
