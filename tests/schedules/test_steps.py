"""Steps against counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules._steps import aligned, as_scalar, check_steps, elapsed, share


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_integers_keep_their_dtype_and_counts_their_meaning(dtype):
    step = jnp.asarray(100, dtype)
    for begin, expected in ((30, 70), (100, 0), (127, 0), (10**6, 0), (10**12, 0)):
        found = elapsed(step, begin)
        assert found.dtype == dtype
        assert int(found) == expected
    assert int(elapsed(step, 30, 50)) == 20
    assert int(elapsed(step, 30, 10**12)) == 70


def test_whole_floats_are_integers():
    step, count = aligned(jnp.int32(2**24 + 1), 1e4)
    assert (step.dtype, count.dtype, count) == (jnp.int32, jnp.int32, 10_000)


def test_fractions_are_floats():
    assert float(elapsed(jnp.int32(7), 2.5)) == 4.5
    assert float(elapsed(jnp.float16(7.5), 2)) == 5.5
    assert elapsed(jnp.float16(7.5), 2).dtype == jnp.float32


def test_fractions_are_float64_in_64_bits(x64):
    assert elapsed(jnp.float32(7.5), 2).dtype == jnp.float64
    assert int(elapsed(jnp.asarray(10**12), 10**11)) == 9 * 10**11


def test_infinite_count_is_never_reached():
    assert int(elapsed(jnp.int32(2**31 - 1), 5, math.inf)) == 2**31 - 6
    assert int(elapsed(jnp.int32(100), math.inf)) == 0


@pytest.mark.parametrize("length", [3, 40, 41, 49, 107, 2**24])
def test_share_is_at_most_one_when_compiled(length):
    n = jnp.float32([0, length - 1, length])
    found = jax.jit(lambda n: share(n, float(length)))(n)
    assert found[0] == 0
    assert found[1] <= 1
    assert found[2] == 1


def test_plain_numbers_stay_and_arrays_widen(x64):
    assert as_scalar(0.1) == 0.1
    assert isinstance(as_scalar(3), int)
    for value in (jnp.float32(0.5), jnp.bfloat16(0.5), np.ones(()), jnp.int32(1)):
        assert as_scalar(value).dtype == jnp.float64


@pytest.mark.parametrize("value", [None, "4", True, math.nan, jnp.int32(4), [4]])
def test_count_must_be_a_plain_number(value):
    with pytest.raises(
        gradtx.ArgumentError, match=r"length must be a plain number.*Gi"
    ):
        check_steps(length=value)


@pytest.mark.parametrize("value", [4, -4, 1e4, math.inf, np.int64(4)])
def test_plain_numbers_are_counts(value):
    assert check_steps(length=value) is None
