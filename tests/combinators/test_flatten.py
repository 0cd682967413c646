"""One vector in place of a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {
    "w": jnp.arange(6.0).reshape(2, 3),
    "b": jnp.ones(2),
    "s": jnp.array(2.0),
    "none": None,
}


def test_elementwise_optimizers_give_what_they_give_leaf_by_leaf(x64):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    draw = lambda p: jnp.asarray(rng.normal(size=(200, *p.shape)))
    grads = jax.tree.map(draw, params)

    def path(tx):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gradtx.apply_updates(params, updates), state), updates

        return jax.jit(
            lambda: jax.lax.scan(step, (params, tx.init(params)), grads)[1]
        )()

    # the same float64 operations on other shapes
    for a, b in zip(
        jax.tree.leaves(path(gradtx.adamw(0.1))),
        jax.tree.leaves(path(gradtx.flatten(gradtx.adamw(0.1)))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_state_and_updates_equal_optax(lenient):
    ours, theirs = (lib.flatten(lib.clip_by_block_rms(0.5)) for lib in (gradtx, optax))
    g = {k: v for k, v in PARAMS.items() if k != "none"}
    for a, b in zip(
        *(jax.tree.leaves(tx.update(g, tx.init(g))[0]) for tx in (ours, theirs)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)  # float32 means of 9 numbers


def test_leaves_keep_their_dtypes_and_integers_stay_out():
    zero0 = np.zeros(2, jax.dtypes.float0)
    params = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2), "n": jnp.arange(2)}
    grads = params | {"n": zero0}
    tx = gradtx.flatten(gradtx.trace(0.9))
    state = tx.init(params)
    assert state.trace.shape == (5,)
    assert state.trace.dtype == jnp.float32
    updates, _ = tx.update(grads, state, params)
    assert updates["w"].dtype == jnp.bfloat16
    assert updates["n"] is zero0


def test_extra_arguments_reach_the_inner_link():
    @gradtx.transformation
    def by_value():
        def update(updates, state, params=None, *, value):
            return updates * value, state

        return gradtx.identity().init, update

    tx = gradtx.flatten(by_value())
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), value=2.0)
    np.testing.assert_array_equal(updates["b"], 2.0)
    assert updates["none"] is None


def test_mismatch_is_named():
    tx = gradtx.flatten(gradtx.sgd(1.0))
    g = {k: v for k, v in PARAMS.items() if k != "s"}
    with pytest.raises(gradtx.TreeMismatchError, match=r"updates\['s'\] is missing"):
        tx.update(g, tx.init(PARAMS), PARAMS)


def test_empty_tree():
    tx = gradtx.flatten(gradtx.adam(1e-3))
    assert tx.update({}, tx.init({}), {})[0] == {}
