"""A transformation for each group of leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"embed": jnp.ones((2, 3)), "layers": [jnp.ones(2), jnp.full(3, 2.0)]}


def _grow(tx, steps=3) -> tuple[Any, Any]:
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(params, state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize(
    "labels",
    [
        {"embed": "slow", "layers": ["slow", "fast"]},
        lambda tree: {"embed": "slow", "layers": ["slow", "fast"]},
        gradtx.label_paths({"layers/1": "fast"}, default="slow"),
    ],
)
def test_each_leaf_follows_its_label(labels):
    groups = {"slow": gradtx.sgd(0.1), "fast": gradtx.adam(0.2)}
    params, _ = _grow(gradtx.partition(groups, labels))
    np.testing.assert_allclose(params["embed"], 0.9**3, rtol=1e-6)
    fast, alone = gradtx.adam(0.2), PARAMS["layers"][1]
    state = fast.init(alone)
    for _ in range(3):
        updates, state = fast.update(alone, state)
        alone = gradtx.apply_updates(alone, updates)
    np.testing.assert_array_equal(params["layers"][1], alone)


def test_numbers_and_state_layout_equal_optax(lenient):
    labels = {"embed": "a", "layers": "b"}
    ours, s = _grow(
        gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.lion(0.2)}, labels)
    )
    theirs, t = _grow(
        optax.partition({"a": optax.sgd(0.1), "b": optax.lion(0.2)}, labels)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), ours, theirs)
    assert s._fields == t._fields
    assert set(s.inner_states) == set(t.inner_states)
    assert s.inner_states["a"]._fields == t.inner_states["a"]._fields


def test_selector_gives_labels_true_and_false():
    tx = gradtx.partition(
        {True: gradtx.scale(2.0), False: gradtx.set_to_zero()}, gradtx.ndim_at_least(2)
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["embed"], 2.0)
    np.testing.assert_array_equal(updates["layers"][0], 0.0)


def test_dict_order_does_not_matter_under_jit():
    labels = {"b": "x", "a": "y"}
    params = {"b": jnp.ones(2), "a": jnp.ones(3)}
    tx = gradtx.partition({"x": gradtx.scale(1.0), "y": gradtx.scale(5.0)}, labels)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["a"], 5.0)


def test_unknown_label_names_the_leaf():
    tx = gradtx.partition({"a": gradtx.sgd(0.1)}, {"embed": "a", "layers": "c"})
    pattern = r"params\['layers'\]\[0\] has the label 'c'.*for \['a'\]"
    with pytest.raises(gradtx.ArgumentError, match=pattern):
        tx.init(PARAMS)


def test_labels_that_do_not_fit_are_named():
    tx = gradtx.partition({"a": gradtx.sgd(0.1)}, {"embed": "a"})
    with pytest.raises(gradtx.ArgumentError, match="labels must have the structure"):
        tx.init(PARAMS)


def test_older_spelling_is_the_same():
    assert gradtx.multi_transform is gradtx.partition
    assert gradtx.MultiTransformState is gradtx.PartitionState
