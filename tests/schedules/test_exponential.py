"""Decay by one factor per period."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules import exponential_decay
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values


@pytest.mark.parametrize(
    "args",
    [
        (1.0, 10, 0.9),
        (1.0, 10, 0.9, 5),
        (1.0, 10, 0.9, 5, True),
        (1.0, 10, 0.5, 3, True, 0.2),
        (1.0, 10, 0.5, 0, False, 2.0),
        (1.0, 10, 1.1, 0, False, 2.0),
        (1.0, 10, 1.0, 3, False, 0.2),
        (1.0, 10, 0.0, 3, True, 0.2),
        (1.0, 0, 0.5, 3, True, 0.2),
        (1.0, -4, 0.5),
        (0.1, 10, 0.5, -3, False, 0.02),
        (1.0, 1, 0.5),
    ],
)
def test_values_equal_optax(args):
    assert_equals_optax("exponential_decay", *args)


def test_smooth_decay_equals_its_definition():
    decay = exponential_decay(3.0, 10, 0.7, 6)
    assert_equals_formula(decay, lambda t: 3.0 * 0.7 ** (max(t - 6, 0) / 10))


def test_staircase_equals_its_definition():
    stairs = exponential_decay(3.0, 10, 0.7, 6, staircase=True)
    assert_equals_formula(stairs, lambda t: 3.0 * 0.7 ** (max(t - 6, 0) // 10))


@pytest.mark.parametrize(("rate", "bound"), [(0.5, max), (1.0, min), (2.0, min)])
def test_end_value_bounds_on_the_side_of_the_rate(rate, bound):
    decay = exponential_decay(1.0, 5, rate, end_value=1.5)
    assert_equals_formula(decay, lambda t: bound(rate ** (t / 5), 1.5))


def test_stairs_are_exact_where_float32_is_not():
    period = 2**24 - 1
    stairs = exponential_decay(1.0, period, 0.5, staircase=True)
    for k in (1, 2, 50):
        assert float(stairs(k * period - 1)) == 0.5 ** (k - 1)
        assert float(stairs(k * period)) == 0.5**k


def test_period_beyond_int32():
    smooth = exponential_decay(1.0, 10**10, 0.5)
    np.testing.assert_allclose(smooth(10**9), 0.5**0.1, rtol=1e-6)
    assert float(exponential_decay(1.0, 10**10, 0.5, staircase=True)(10**9)) == 1.0


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0, 2.0])
def test_traced_rate_equals_a_plain_one(rate):
    def at(rate):
        return values(exponential_decay(1.0, 5, rate, end_value=1.5))

    def traced(rate):
        return jax.vmap(exponential_decay(1.0, 5, rate, end_value=1.5))(jnp.arange(130))

    # compiled, a power takes other roundings: |log(2^26)| of them at most
    np.testing.assert_allclose(jax.jit(traced)(rate), at(rate), rtol=2e-6)
    slope = jax.jacfwd(lambda r: traced(r)[:20])(jnp.float32(rate))
    assert np.isfinite(slope).all()


def test_derivative_by_the_rate():
    slope = jax.grad(lambda rate: exponential_decay(2.0, 10, rate)(15))(0.7)
    np.testing.assert_allclose(slope, 2 * 1.5 * math.sqrt(0.7), rtol=1e-6)


def test_negative_rate_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="decay_rate must be 0 or more"):
        exponential_decay(1.0, 10, -0.5)
