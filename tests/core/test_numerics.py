"""Counters that saturate, corrections that are exact, casts that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import (
    bias_correction,
    capped,
    capped_abs_sq,
    cast,
    safe_sqrt,
    second_moment_like,
    zeros_like,
)


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint32", "float32"])
def test_counter_saturates(dtype):
    top = (jnp.iinfo if "int" in dtype else jnp.finfo)(dtype).max
    assert gradtx.safe_increment(jnp.array(top, dtype)) == jnp.array(top, dtype)
    after = gradtx.safe_increment(jnp.array(3, dtype))
    assert (after.dtype, float(after)) == (jnp.dtype(dtype), 4.0)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.9999999])
@pytest.mark.parametrize("count", [1, 2, 10, 1000, 2**31 - 1])
def test_bias_correction_is_exact_to_rounding(decay, count):
    # 1 − d^t in extended precision; a few float32 roundings of t·log(d)
    exact = -np.expm1(count * np.log(np.longdouble(decay))) if decay else 1.0
    np.testing.assert_allclose(bias_correction(decay, count), float(exact), rtol=3e-7)


def test_bias_correction_of_a_traced_decay():
    found = jax.jit(bias_correction)(jnp.float32(0.5), jnp.int32(2))
    np.testing.assert_allclose(found, 0.75, rtol=1e-6)


def test_bias_correction_in_64_bits(x64):
    exact = -np.expm1(7 * np.log(0.999))
    np.testing.assert_allclose(bias_correction(0.999, 7), exact, rtol=1e-15)


def test_cast_keeps_finite_numbers_finite():
    x = jnp.array([1e6, -1e6, 1.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(
        cast(x, jnp.float16), np.array([65504, -65504, 1, np.inf, np.nan], np.float16)
    )
    top = jnp.finfo(jnp.float32).max
    assert jnp.isfinite(cast(top, jnp.bfloat16))


def test_cast_of_complex_to_real_keeps_the_real_part():
    np.testing.assert_array_equal(cast(jnp.array([1 + 2j]), jnp.float32), [1.0])


def test_cast_drops_weak_types():
    assert not jax.typeof(cast(1.0, jnp.float32)).weak_type


def test_square_of_a_large_number_is_finite_and_of_infinity_is_not():
    squares = capped_abs_sq(jnp.array([1e20, 2.0, jnp.inf, jnp.nan]))
    top = jnp.finfo(jnp.float32).max / 2
    np.testing.assert_array_equal(squares, [top, 4.0, np.inf, np.nan])
    np.testing.assert_array_equal(capped_abs_sq(jnp.array([3 + 4j])), [25.0])


def test_a_capped_number_leaves_room_for_products():
    x = jnp.array([1e20, 3e38, -3e38, -jnp.inf, jnp.nan])
    most = float(jnp.finfo(jnp.float32).max) ** 0.75
    np.testing.assert_allclose(capped(x), [1e20, most, -most, -np.inf, np.nan])
    assert capped(jnp.array([3 + 4j])) == 3 + 4j


def test_a_root_has_a_derivative_at_zero():
    assert jax.grad(safe_sqrt)(0.0) == 0
    assert jax.grad(safe_sqrt)(4.0) == 0.25
    assert safe_sqrt(jnp.zeros(())) < 2e-19
    np.testing.assert_array_equal(safe_sqrt(jnp.array([9.0, jnp.nan])), [3.0, np.nan])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_second_moments_are_real_and_wide(dtype):
    nu = second_moment_like({"w": jnp.ones(2, dtype)})["w"]
    assert nu.dtype == jnp.float32


def test_second_moments_of_64_bits_have_64(x64):
    params = {"w": jnp.ones(2, "float64"), "z": jnp.ones(2, "complex128")}
    nu = second_moment_like(params)
    assert {x.dtype.name for x in jax.tree.leaves(nu)} == {"float64"}


def test_zeros_keep_integers_and_follow_dtype_and_wide():
    params = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.ones(2, jnp.int32)}
    assert [x.dtype for x in jax.tree.leaves(zeros_like(params))] == [
        "int32",
        "bfloat16",
    ]
    made = zeros_like(params, jnp.float16)
    assert [x.dtype for x in jax.tree.leaves(made)] == ["int32", "float16"]
    assert zeros_like(params, wide=True)["w"].dtype == jnp.float32


def test_zeros_of_abstract_and_python_leaves():
    made = zeros_like({"a": jax.ShapeDtypeStruct((2,), jnp.bfloat16), "b": 1.0})
    assert (made["a"].dtype, made["a"].shape, made["b"].shape) == ("bfloat16", (2,), ())


def test_a_dtype_that_is_not_enabled_becomes_the_one_that_is():
    # a request for float64 would warn at every init
    assert gradtx.core.canonicalize_dtype("float64") == jnp.float32
    assert gradtx.core.canonicalize_dtype(None) is None
    state = gradtx.scale_by_adam(mu_dtype="float64").init({"w": jnp.ones(2)})
    assert state.mu["w"].dtype == jnp.float32
