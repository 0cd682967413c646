"""States answer by name, and parameters of the same name are never touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import tree

#: parameters whose names are those of fields
NAMED = {"mu": jnp.ones(2), "count": jnp.ones(3), "learning_rate": jnp.ones(1)}


def test_fields_are_found_and_parameters_are_not():
    state = gradtx.adamw(1e-3).init(NAMED)
    assert jax.tree.structure(tree.get(state, "mu")) == jax.tree.structure(NAMED)
    assert int(tree.get(state, "count")) == 0
    assert tree.get(state, "learning_rate") is None
    assert tree.get(state, "learning_rate", default=7) == 7
    assert tree.get(state, "ScaleByAdamState") is state[0]
    assert tree.get(state, "scale_by_adam") is state[0]


def test_set_leaves_parameters_alone():
    state = gradtx.adamw(1e-3).init(NAMED)
    changed = tree.set(state, count=9)
    assert int(changed[0].count) == int(changed.scale_by_learning_rate.count) == 9
    assert changed[0].count.dtype == jnp.int32
    for before, after in zip(
        jax.tree.leaves((state[0].mu, state[0].nu)),
        jax.tree.leaves((changed[0].mu, changed[0].nu)),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)


def test_several_values_are_named():
    tx = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_lion())
    state = tx.init(NAMED)
    with pytest.raises(KeyError, match=r"'mu' has 2 values, at \[0\].mu, \[1\].mu"):
        tree.get(state, "mu")
    one = tree.get(
        state, "mu", filtering=lambda path, _: path[-1].tuple_name == "ScaleByLionState"
    )
    assert one is state[1].mu


def test_set_filters_and_refuses_unknown_names():
    tx = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_lion())
    state = tx.init({"w": jnp.zeros(2)})
    lion = tree.set(
        state, lambda path, _: path[-1].tuple_name == "ScaleByLionState", count=5
    )
    assert [int(s.count) for s in lion] == [0, 5]
    with pytest.raises(KeyError, match="'momentum'"):
        tree.set(state, momentum=1.0)


def test_setting_under_jit_compiles_once():
    tx = gradtx.adam(1e-3)
    params = {"w": jnp.ones(2)}
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return tx.update(params, state, params)

    state = tx.init(params)
    _, state = step(state)
    _, state = step(tree.set(state, count=100))
    assert (len(traces), int(state[0].count)) == (1, 101)


def test_names_in_dicts_lists_and_partitions():
    tx = gradtx.partition(
        {"a": gradtx.adam(1e-3), "b": gradtx.sgd(0.1)}, {"x": "a", "y": "b"}
    )
    state = tx.init({"x": jnp.ones(1), "y": jnp.ones(1)})
    found = tree.get(state, "mu")
    assert found["x"].shape == (1,)
    assert isinstance(found["y"], gradtx.MaskedNode)
    nested = [{"rate": 1.0}, {"rate": 2.0}]
    assert [v for _, v in tree.get_all_with_path(nested, "rate")] == [1.0, 2.0]
    assert tree.set(nested, rate=3.0) == [{"rate": 3.0}, {"rate": 3.0}]


def test_learning_rate_is_that_in_use():
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.adamw(gradtx.linear_schedule(1.0, 0.0, 4)),
    )
    state = tx.init(NAMED)
    assert float(gradtx.learning_rate(state)) == 1.0
    for expected in (1.0, 0.75, 0.5):
        _, state = tx.update(NAMED, state, NAMED)
        assert float(gradtx.learning_rate(state)) == expected
    wrapped = gradtx.accumulate(gradtx.adam(0.25), every=2).init(NAMED)
    assert float(gradtx.learning_rate(wrapped)) == 0.25


def test_several_learning_rates_are_named():
    tx = gradtx.partition(
        {"a": gradtx.adam(0.5), "b": gradtx.sgd(0.25)}, {"x": "a", "y": "b"}
    )
    state = tx.init({"x": jnp.ones(1), "y": jnp.ones(1)})
    assert sorted(map(float, gradtx.learning_rates(state).values())) == [0.25, 0.5]
    with pytest.raises(
        gradtx.ArgumentError, match="one learning rate, got inner_states"
    ):
        gradtx.learning_rate(state)
    with pytest.raises(gradtx.ArgumentError, match="got none"):
        gradtx.learning_rate(gradtx.scale_by_adam().init(NAMED))
