"""The lift of leaf maths to trees, and the dtype rules it carries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import any_shape, map_leaves

FLOATS = ["float16", "bfloat16", "float32"]


def _momentum(g, mu, *, decay):
    mu = decay * mu + g
    return mu, mu


@pytest.mark.parametrize("state", FLOATS)
@pytest.mark.parametrize("grad", FLOATS)
def test_updates_keep_the_gradients_dtype_and_states_theirs(grad, state):
    g, mu = jnp.ones(3, grad), jnp.ones(3, state)
    u, mu = map_leaves(_momentum, g, mu, outputs=2, decay=0.5)
    assert (u.dtype, mu.dtype) == (jnp.dtype(grad), jnp.dtype(state))
    assert not jax.typeof(u).weak_type
    assert not jax.typeof(mu).weak_type


@pytest.mark.parametrize("dtype", FLOATS)
def test_leaves_are_computed_in_float32(dtype):
    seen = []

    def leaf(g):
        seen.append(g.dtype)
        return g

    map_leaves(leaf, jnp.ones(3, dtype))
    assert seen == [jnp.float32]


def test_one_64_bit_leaf_makes_its_row_64_bits(x64):
    seen = []

    def leaf(g, mu, *, rate):
        seen.append((g.dtype, mu.dtype, rate.dtype))
        return g + rate, mu

    g = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(2, jnp.float32)}
    mu = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, jnp.bfloat16)}
    u, mu = map_leaves(leaf, g, mu, outputs=2, rate=jnp.float32(0.1))
    assert seen == [("float64",) * 3, ("float32",) * 3]
    assert [x.dtype for x in jax.tree.leaves((u, mu))] == [
        "float32",
        "float32",
        "float64",
        "bfloat16",
    ]


def test_python_scalars_stay_exact():
    found = {}

    def leaf(g, *, b2):
        found["rest"] = 1 - b2
        return g

    map_leaves(leaf, jnp.ones(1), b2=0.999)
    assert found["rest"] == 1 - 0.999


def test_complex_leaves_mix_with_real_states():
    def leaf(g, nu):
        nu = nu + g.real**2 + g.imag**2
        return g / nu, nu

    u, nu = map_leaves(leaf, jnp.array([3 + 4j]), jnp.zeros(1), outputs=2)
    assert (u.dtype, nu.dtype) == (jnp.complex64, jnp.float32)
    np.testing.assert_allclose(u, [(3 + 4j) / 25], rtol=1e-6)


def test_float0_passes_with_its_state():
    grads = {"w": jnp.ones(2), "n": np.zeros(3, jax.dtypes.float0)}
    state = {"w": jnp.zeros(2), "n": jnp.arange(3)}
    u, mu = map_leaves(_momentum, grads, state, outputs=2, decay=0.5)
    assert u["n"] is grads["n"]
    assert mu["n"] is state["n"]


def test_none_empty_and_zero_size_leaves_pass():
    grads = {"a": None, "b": {}, "c": jnp.ones((0, 3)), "d": jnp.ones(())}
    u, mu = map_leaves(_momentum, grads, grads, outputs=2, decay=0.5)
    assert u["a"] is mu["a"] is None
    assert (u["b"], u["c"].shape, u["d"].shape) == ({}, (0, 3), ())
    assert map_leaves(_momentum, {}, {}, outputs=2, decay=0.5) == ({}, {})


def test_python_numbers_are_leaves():
    u = map_leaves(lambda g: 2 * g, {"a": 1.5})
    assert u["a"].dtype == jnp.float32
    assert float(u["a"]) == 3.0


def test_f16_saturates_instead_of_overflowing():
    u, mu = map_leaves(
        _momentum,
        jnp.full(1, 6e4, "float16"),
        jnp.full(1, 6e4, "float16"),
        outputs=2,
        decay=1.0,
    )
    assert float(u[0]) == float(mu[0]) == 65504.0


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), float("-inf")])
def test_infinities_and_nan_stay(bad):
    u = map_leaves(lambda g: g, jnp.full(1, bad, "float16"))
    np.testing.assert_array_equal(u, [bad])


@pytest.mark.parametrize(
    ("updates", "state", "error", "pattern"),
    [
        (
            {"enc": {"w": jnp.ones((8, 4))}},
            {"enc": {"w": jnp.ones((4, 8))}},
            gradtx.ShapeError,
            r"updates\['enc'\]\['w'\]: expected \(4, 8\), got \(8, 4\)",
        ),
        (
            {"a": jnp.ones(1)},
            {"a": jnp.ones(1), "b": jnp.ones(1)},
            gradtx.TreeMismatchError,
            r"updates\['b'\] is missing: state has this leaf",
        ),
        (
            {"a": jnp.ones(1), "c": jnp.ones(1)},
            {"a": jnp.ones(1)},
            gradtx.TreeMismatchError,
            r"updates\['c'\] is unexpected: state has no such leaf",
        ),
        (
            {"a": None},
            {"a": jnp.ones(1)},
            gradtx.TreeMismatchError,
            r"updates\['a'\] is missing.*zeros",
        ),
        (
            [jnp.ones(1)],
            (jnp.ones(1),),
            gradtx.TreeMismatchError,
            r"same leaves in containers of different kinds: got list where tuple",
        ),
        (
            {"a": jnp.ones(1, jnp.int32)},
            {"a": jnp.ones(1)},
            gradtx.DtypeError,
            r"updates\['a'\] has dtype int32: gradients must be floating",
        ),
    ],
)
def test_mismatch_names_the_leaf(updates, state, error, pattern):
    with pytest.raises(error, match=pattern):
        map_leaves(_momentum, updates, state, outputs=2, decay=0.5)


def test_leaf_function_that_changes_a_shape_is_named():
    with pytest.raises(gradtx.ShapeError, match=r"returned shape \(\) for \['a'\]"):
        map_leaves(lambda g: g.sum(), {"a": jnp.ones(3)})


def test_any_shape_lifts_the_check():
    u, flags = map_leaves(
        lambda g, flag: (g, flag | (g > 0).any()),
        {"a": jnp.ones(3)},
        any_shape({"a": jnp.zeros((), bool)}),
        outputs=2,
    )
    assert bool(flags["a"])
    assert u["a"].shape == (3,)
