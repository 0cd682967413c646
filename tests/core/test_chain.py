"""The composition of transformations."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ArgumentError

PARAMS = {"w": jnp.array([1.0, -2.0])}


def test_links_apply_in_order():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale(10.0))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["w"], [10.0, -10.0])
    tx = gradtx.chain(gradtx.scale(10.0), gradtx.clip(1.0))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["w"], [1.0, -1.0])


def test_empty_chain_is_the_identity():
    tx = gradtx.chain()
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    assert updates is PARAMS
    assert state == ()


def test_state_goes_by_index_name_and_string():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale_by_adam(), gradtx.scale(-1))
    state = tx.init(PARAMS)
    assert issubclass(type(state), tuple)
    assert state[1] is state.scale_by_adam is state["scale_by_adam"]
    assert state[-1] == gradtx.EmptyState()
    assert state[:2] == (state[0], state[1])
    paths = jax.tree_util.tree_leaves_with_path(state)
    assert ".scale_by_adam.nu['w']" in [jax.tree_util.keystr(p) for p, _ in paths]


def test_inserted_link_moves_no_other_path():
    short = gradtx.chain(gradtx.trace(0.9), gradtx.scale(-1))
    long = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9), gradtx.scale(-1))
    before, after = (
        {
            jax.tree_util.keystr(p)
            for p, _ in jax.tree_util.tree_leaves_with_path(tx.init(PARAMS))
        }
        for tx in (short, long)
    )
    assert before <= after


def test_name_that_comes_twice_is_numbered():
    tx = gradtx.chain(*[gradtx.trace(0.5)] * 3)
    assert tx.init(PARAMS)._fields == ("trace", "trace_2", "trace_3")


def test_numbered_name_avoids_a_link_of_that_name():
    @gradtx.transformation
    def trace_2():
        return gradtx.scale(1.0)

    tx = gradtx.chain(trace_2(), gradtx.trace(0.5), gradtx.trace(0.5))
    assert tx.init(PARAMS)._fields == ("trace_2", "trace", "trace_3")


def test_state_pickles_and_keeps_its_tree_type():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
    state = tx.init(PARAMS)
    restored = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    other = gradtx.chain(gradtx.clip(2.0), gradtx.adam(0.2)).init(PARAMS)
    assert jax.tree.structure(other) == jax.tree.structure(state)


def test_named_chain_files_states_under_the_given_names():
    tx = gradtx.named_chain(("smooth", gradtx.ema(0.9)), ("my-sign", gradtx.scale(-1)))
    state = tx.init(PARAMS)
    assert state._fields == ("smooth", "my_sign")
    assert state["my-sign"] is state.my_sign


@pytest.mark.parametrize("name", ["class", "1st", "_x", "ünï", ""])
def test_any_string_makes_a_field(name):
    state = gradtx.named_chain((name, gradtx.ema(0.9))).init(PARAMS)
    assert state[name] is state[0]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([("a", gradtx.clip(1.0)), ("a", gradtx.clip(1.0))], "unique, got 'a'"),
        ([("a-b", gradtx.clip(1.0)), ("a_b", gradtx.clip(1.0))], "unique, got 'a_b'"),
        ([gradtx.clip(1.0)], r"must be a pair \(name, transformation\), got clip"),
        ([("a", 3)], "expected a transformation"),
    ],
)
def test_named_chain_names_what_is_wrong(arguments, pattern):
    with pytest.raises(ArgumentError, match=pattern):
        gradtx.named_chain(*arguments)


def test_state_of_another_chain_is_refused():
    state = gradtx.chain(gradtx.clip(1.0)).init(PARAMS)
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale(-1))
    with pytest.raises(ArgumentError, match="state has 1 links and the chain 2"):
        tx.update(PARAMS, state)


def test_chain_is_associative_in_its_numbers():
    a, b, c = gradtx.clip(1.0), gradtx.trace(0.9), gradtx.scale(-0.1)
    flat, nested = gradtx.chain(a, b, c), gradtx.chain(gradtx.chain(a, b), c)
    s, t = flat.init(PARAMS), nested.init(PARAMS)
    for _ in range(3):
        u, s = flat.update(PARAMS, s)
        v, t = nested.update(PARAMS, t)
        np.testing.assert_array_equal(u["w"], v["w"])
