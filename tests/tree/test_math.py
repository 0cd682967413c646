"""Arithmetic on trees equals NumPy's on their leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import tree, tree_utils

X = {"a": jnp.array([1.0, -2.0, 3.0]), "b": [jnp.array([[4.0], [0.5]])]}
Y = {"a": jnp.array([2.0, 5.0, -1.0]), "b": [jnp.array([[-2.0], [8.0]])]}


def _flat(t):
    return np.concatenate([np.ravel(np.asarray(x)) for x in jax.tree.leaves(t)])


x, y = _flat(X).astype(np.float64), _flat(Y).astype(np.float64)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (tree.add(X, Y), x + y),
        (tree.add(X, Y, X), 2 * x + y),
        (tree.sub(X, Y), x - y),
        (tree.mul(X, Y), x * y),
        (tree.div(X, Y), x / y),
        (tree.scale(3.0, X), 3 * x),
        (tree.add_scale(X, 0.5, Y), x + y / 2),
        (tree.clip(X, -1.0, 2.0), np.clip(x, -1, 2)),
        (tree.clip(X, max_value=0.0), np.minimum(x, 0)),
        (tree.where(True, X, Y), x),
        (tree.where(jnp.array(False), X, Y), y),
        (tree.ones_like(X), np.ones(5)),
        (tree.full_like(X, 2.5), np.full(5, 2.5)),
        (tree.real(tree.scale(1 + 2j, X)), x),
        (tree.conj(X), x),
    ],
    ids=range(15),
)
def test_leaf_by_leaf(got, expected):
    np.testing.assert_allclose(_flat(got), expected, rtol=1e-6)
    assert jax.tree.structure(got) == jax.tree.structure(X)


def test_reductions():
    np.testing.assert_allclose(tree.vdot(X, Y), x @ y, rtol=1e-6)
    np.testing.assert_allclose(tree.sum(X), x.sum(), rtol=1e-6)
    np.testing.assert_allclose(tree.sum(X, associative_reduction=True), x.sum())
    assert float(tree.max(X)) == 4.0
    assert float(tree.min(X)) == -2.0
    np.testing.assert_allclose(tree.norm(X), np.sqrt(x @ x), rtol=1e-6)
    np.testing.assert_allclose(tree.norm(X, squared=True), x @ x, rtol=1e-6)
    np.testing.assert_allclose(tree.norm(X, 1), np.abs(x).sum(), rtol=1e-6)
    assert float(tree.norm(X, jnp.inf)) == 4.0
    assert float(tree.norm(X, "inf", squared=True)) == 16.0
    with pytest.raises(gradtx.ArgumentError, match="ord must be"):
        tree.norm(X, 3)


def test_reductions_of_nothing():
    assert tree.sum({}) == 0
    assert tree.max({"void": jnp.zeros((0, 2))}) == -np.inf
    assert tree.min([None]) == np.inf
    assert float(tree.norm({})) == 0


def test_vdot_conjugates_the_first():
    z, w = {"z": jnp.array([1 + 2j, 3j])}, {"z": jnp.array([2 - 1j, 1 + 1j])}
    expected = np.vdot(np.asarray(z["z"]), np.asarray(w["z"]))
    np.testing.assert_allclose(tree.vdot(z, w), expected, rtol=1e-6)


def test_sums_of_many_low_precision_leaves_are_not_lost():
    many = [jnp.full(100, 0.1, jnp.bfloat16)] * 1000
    one = float(jnp.bfloat16(0.1))
    np.testing.assert_allclose(tree.norm(many), np.sqrt(1e5) * one, rtol=1e-6)
    np.testing.assert_allclose(tree.vdot(many, many), 1e5 * one**2, rtol=1e-5)


def test_mixed_dtypes_are_reduced_under_strict_promotion():
    mixed = [jnp.ones(2), jnp.ones(3, jnp.bfloat16)]
    assert float(tree.sum(mixed)) == 5.0
    assert float(tree.max(mixed)) == 1.0


def test_none_stays_none_in_add_scale():
    got = tree.add_scale({"a": None, "b": 1.0}, 2.0, {"a": None, "b": 3.0})
    assert got == {"a": None, "b": 7.0}


def test_batch_shape_and_allclose():
    got = tree.batch_shape(X, (2, 3))
    assert [v.shape for v in jax.tree.leaves(got)] == [(2, 3, 3), (2, 3, 2, 1)]
    assert tree.allclose(X, X)
    assert not tree.allclose(X, Y)


def test_prefixed_names_are_the_same_functions():
    for name in dir(tree):
        function = getattr(tree, name)
        if callable(function) and not name.startswith(("_", "learning", "Named")):
            assert getattr(tree_utils, f"tree_{name}") is function


def test_casting():
    low = tree.cast(X, jnp.float16)
    assert {v.dtype.name for v in jax.tree.leaves(low)} == {"float16"}
    assert tree.cast(X, None) is X
    assert jax.tree.leaves(tree.cast_like(low, X))[0].dtype == jnp.float32
    mixed = [jnp.zeros(1, jnp.float16), jnp.zeros(1), jnp.zeros(1, jnp.bfloat16)]
    assert tree.dtype(mixed, "promote") == jnp.float32
    assert tree.dtype(mixed[:2], "highest") == jnp.float32
    assert tree.dtype(mixed[:2], "lowest") == jnp.float16
    assert tree.dtype({}) == jnp.float32
    with pytest.raises(ValueError, match=r"tree\[1\] has dtype float32"):
        tree.dtype(mixed)
    with pytest.raises(ValueError, match="neither"):
        tree.dtype([mixed[0], mixed[2]], "lowest")
    with pytest.raises(ValueError, match="mixed_dtype_handler"):
        tree.dtype(mixed, "widest")  # type: ignore[arg-type]


def test_random_trees_differ_by_leaf_and_repeat_by_key():
    key = jax.random.key(0)
    shapes = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    drawn, again = tree.random_like(key, shapes), tree.random_like(key, shapes)
    np.testing.assert_array_equal(drawn["a"], again["a"])
    assert not np.array_equal(drawn["a"], drawn["b"])
    signs = tree.random_like(key, shapes, jax.random.rademacher, jnp.int32)
    assert set(_flat(signs)) <= {-1, 1}
    raw = tree.unwrap_random_key_data({"k": key, "x": jnp.ones(1)})
    np.testing.assert_array_equal(raw["k"], jax.random.key_data(key))
    assert raw["x"].tolist() == [1.0]


def test_moments():
    g, m = {"w": jnp.array([2.0, -3.0]), "n": None}, {"w": jnp.ones(2), "n": None}
    at = tree.update_moment(g, m, 0.75, 2)
    np.testing.assert_allclose(at["w"], [0.25 * 4 + 0.75, 0.25 * 9 + 0.75])
    assert at["n"] is None
    up = tree.update_infinity_moment(g, m, 0.5, 0.25)
    np.testing.assert_allclose(up["w"], [2.25, 3.25])
    z = {"w": jnp.array([3 + 4j])}
    four = tree.update_moment_per_elem_norm(z, {"w": jnp.zeros(1)}, 0.5, 4)
    np.testing.assert_allclose(four["w"], [625 / 2])
    low = tree.update_moment(g, tree.cast(m, jnp.bfloat16), 0.75, 1)
    assert low["w"].dtype == jnp.bfloat16
    corrected = tree.bias_correction({"w": jnp.ones(1)}, 0.5, 2)
    np.testing.assert_allclose(corrected["w"], [4 / 3], rtol=1e-6)
