"""Norms that neither overflow, underflow nor lose leaves."""

from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import leaf_norm, scaled_norm, sum_leaves

# a sum of n squares in float32 is off by less than n·2^-24 relatively; pairwise, less
RTOL = 1e-5


def _truth(leaves):
    with np.errstate(over="ignore"):
        return np.sqrt(sum(np.sum(np.asarray(x, np.longdouble) ** 2) for x in leaves))


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (1e20, "float32", (4,)),
        (1e-30, "float32", (1000,)),
        (2e-38, "float32", (7,)),
        (1e-23, "float32", (3, 5)),
        (100, "float16", (1000,)),
        (65504, "float16", (64,)),
        (1e-4, "float16", (1000,)),
        (6e-8, "float16", (10,)),
        (3e38, "bfloat16", (1,)),
        (1e-30, "bfloat16", (50,)),
        (0.0, "float32", (5,)),
    ],
)
def test_extreme_values(value, dtype, shape):
    x = jnp.full(shape, value, dtype)
    expected = float(_truth([np.asarray(x, np.float64)]))
    for norm in (gradtx.global_norm, jax.jit(gradtx.global_norm)):
        np.testing.assert_allclose(norm({"x": x}), expected, rtol=RTOL)


def test_extreme_values_in_64_bits(x64):
    for value in (1e200, 1e-250, 1e-170, 3.0):
        x = jnp.full(100, value)
        np.testing.assert_allclose(gradtx.global_norm(x), 10 * value, rtol=1e-14)


def test_thousand_bfloat16_leaves_are_all_counted():
    tree = [jnp.full(100, 0.1, jnp.bfloat16) for _ in range(1000)]
    exact = np.sqrt(1e5) * float(jnp.bfloat16(0.1))
    np.testing.assert_allclose(gradtx.global_norm(tree), exact, rtol=RTOL)


def test_ten_million_elements_are_all_counted():
    x = jnp.full(10**7, 0.1)
    exact = np.sqrt(1e7) * float(np.float32(0.1))
    np.testing.assert_allclose(gradtx.global_norm(x), exact, rtol=RTOL)


def test_norm_beyond_all_floats_is_infinite_but_its_quotient_is_not():
    x = jnp.full(9, 3e38)
    root, scale = scaled_norm(x)
    assert jnp.isinf(gradtx.global_norm(x))
    np.testing.assert_allclose(float(root) / float(scale), 9e38, rtol=RTOL)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_show(bad):
    norm = gradtx.global_norm({"a": jnp.array([1.0, bad]), "b": jnp.ones(3)})
    assert np.isnan(norm) if np.isnan(bad) else np.isposinf(norm)


def test_complex_and_integer_and_empty_leaves():
    tree = {
        "c": jnp.array([3 + 4j]),
        "n": jnp.arange(3),
        "z": jnp.ones((0, 2)),
        "m": None,
    }
    assert float(gradtx.global_norm(tree)) == 5.0
    assert float(gradtx.global_norm({})) == 0.0
    assert float(gradtx.global_norm(jnp.ones((0,)))) == 0.0


def test_derivative_is_finite_at_zero_and_right_elsewhere():
    grad = jax.grad(lambda x: gradtx.global_norm(x))
    np.testing.assert_array_equal(grad(jnp.zeros(3)), 0.0)
    np.testing.assert_allclose(grad(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


def test_mixed_dtypes_sum_in_the_widest(x64):
    tree = [jnp.ones(3, jnp.bfloat16), jnp.ones(1, jnp.float64)]
    norm = gradtx.global_norm(tree)
    assert norm.dtype == jnp.float64
    assert float(norm) == 2.0


@hypothesis.given(
    st.lists(
        hnp.arrays(
            np.float32,
            st.just(4),
            elements=st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False),
        ),
        min_size=1,
        max_size=4,
    )
)
@hypothesis.settings(deadline=None, max_examples=80, derandomize=True)
def test_agrees_with_extended_precision_on_any_numbers(leaves):
    root, scale = scaled_norm([jnp.asarray(x) for x in leaves])
    found = np.longdouble(float(root)) / np.longdouble(float(scale))
    expected = _truth(leaves)
    # numbers 2^60 below the largest one may vanish: they are below rounding anyway
    assert abs(found - expected) <= RTOL * expected


@pytest.mark.parametrize("value", [1.0, 3e38, 2e-38, 1e20, 0.0])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_leaf_norm_over_axes(value, axis):
    x = jnp.full((3, 4), value)
    root, scale = leaf_norm(x, axis)
    expected = np.linalg.norm(
        np.asarray(x, np.float64), axis=axis, keepdims=axis is not None
    )
    np.testing.assert_allclose(
        np.asarray(root, np.float64) / np.asarray(scale, np.float64),
        np.broadcast_to(
            expected if axis is not None else expected.reshape(()), root.shape
        ),
        rtol=RTOL,
    )


def test_leaf_norm_differentiates():
    grad = jax.grad(lambda x: leaf_norm(x).value)
    np.testing.assert_allclose(grad(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(grad(jnp.zeros(2)), 0.0)


@pytest.mark.parametrize("value", [1e-37, 1e-30, 1.0, 1e20, 3e38, jnp.inf, jnp.nan])
def test_norm_of_large_leaves_is_that_of_float64(value):
    # summed in float32, with a second look where that leaves its range
    large = {"a": jnp.full(2**16, value), "b": jnp.full((2, 2**17), value)}
    small = jax.tree.map(lambda x: x.ravel()[: 2**10], large)
    for tree in (large, small):
        elements = sum(x.size for x in jax.tree.leaves(tree))
        exact = np.float64(np.float32(value)) * np.sqrt(elements)
        largest = float(jnp.finfo("float32").max)
        expected = exact if exact < largest or not np.isfinite(exact) else np.inf
        for kept in (True, False):
            got = scaled_norm(tree, kept=kept).value
            np.testing.assert_allclose(got, np.float32(expected), rtol=1e-6)
        clipped = gradtx.clip_by_global_norm(1.0)
        updates, state = clipped.update(tree, clipped.init(tree))
        if np.isfinite(exact):
            norm = np.sqrt(
                sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(updates))
            )
            np.testing.assert_allclose(norm, min(exact, 1.0), rtol=1e-5)
            assert jnp.isfinite(state.norm)
        norm = lambda tree: scaled_norm(tree, kept=True).value
        if value in (1e-30, 1.0, 1e20):
            slope = jax.grad(jax.jit(norm))(tree)["a"][0]
            np.testing.assert_allclose(slope, 1 / np.sqrt(elements), rtol=1e-5)


def test_programs_that_read_a_sum_at_each_leaf_grow_with_leaves_alone():
    def size(leaves):
        def scaled(tree):
            total = sum_leaves(lambda x: x * x, tree)
            return jax.tree.map(lambda x: x * total, tree)

        tree = [jnp.ones((16, 8))] * leaves
        program = jax.jit(scaled).lower(tree).compile().as_text()
        assert program is not None
        return len(program)

    assert size(96) <= 4.5 * size(24)


SMALL = {"a": (50,), "b": (8, 117), "c": (2434,), "d": (), "e": (4, 4, 4), "f": (4096,)}


def test_small_leaves_are_summed_in_one_kernel_each():
    # XLA sums them in windows otherwise, and writes all their squares to memory first
    tree = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SMALL.items()}
    compiled: Any = jax.jit(gradtx.global_norm).lower(tree).compile()
    squares = 8 * sum(np.prod(s) for s in SMALL.values())
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * squares


def test_small_leaves_are_summed_exactly_and_have_derivatives():
    rng = np.random.default_rng(0)
    tree = {k: rng.normal(size=s).astype(np.float32) for k, s in SMALL.items()}
    tree["c"] *= 1e20
    tree["z"] = np.array([1 + 2j, 3 - 1j], np.complex64)
    norm, back = jax.value_and_grad(gradtx.global_norm)(tree)
    exact = _truth([np.abs(x) for x in tree.values()])
    np.testing.assert_allclose(norm, exact, rtol=2.0**-23)
    for k, x in tree.items():
        np.testing.assert_allclose(back[k], np.conj(x) / exact, rtol=1e-6)
    many = jax.vmap(gradtx.global_norm)({"a": jnp.eye(5), "b": jnp.ones((5, 3))})
    np.testing.assert_allclose(many, np.full(5, 2.0), rtol=1e-6)


def test_no_branch_on_a_gpu(monkeypatch):
    # where the host has to see its condition before it may launch what follows
    tree = {"w": jnp.ones((512, 256)), "b": jnp.ones(3)}
    clip = gradtx.clip_by_global_norm(1.0)
    traced = lambda: str(jax.make_jaxpr(lambda g: clip.update(g, clip.init(g)))(tree))
    assert " cond[" in traced()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert " cond[" not in traced()


def test_a_norm_outside_jit_compiles_once():
    tree = [jnp.full(100, 0.1), jnp.ones((3, 7))]
    gradtx.global_norm(tree)
    timed: list[str] = []

    def listen(event: str, duration_secs: float, **_: object) -> None:
        timed.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        gradtx.global_norm(tree)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [name for name in timed if "compile" in name]
