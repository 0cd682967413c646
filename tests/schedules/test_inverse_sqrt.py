"""The fall with the root of the number of steps."""

import jax
import numpy as np
import pytest

import gradtx
from gradtx.schedules import inverse_sqrt_schedule
from tests.schedules._values import assert_equals_formula, values


def test_values_equal_the_definition():
    def formula(t):
        if t < 20:
            return 0.1 + (2.0 - 0.1) * t / 20
        return 2.0 * (300 / (t - 20 + 300)) ** 0.5

    assert_equals_formula(inverse_sqrt_schedule(2.0, 20, 0.1, timescale=300), formula)


def test_values_equal_the_transformer_schedule():
    width, warmup = 512, 40

    def formula(t):
        return width**-0.5 * min(t**-0.5, t * warmup**-1.5) if t else 0.0

    rate = inverse_sqrt_schedule((width * warmup) ** -0.5, warmup)
    assert_equals_formula(rate, formula)


def test_values_equal_those_of_t5():
    rate = inverse_sqrt_schedule(0.01, 10_000, init_value=0.01)
    steps = np.array([0, 1, 9999, 10_000, 10_001, 40_000, 10**6])
    expected = 1 / np.sqrt(np.maximum(steps, 10_000))
    np.testing.assert_allclose(values(rate, steps), expected, rtol=1e-6)


def test_value_halves_in_three_timescales():
    rate = inverse_sqrt_schedule(1.0, 0, timescale=10)
    assert [float(rate(t)) for t in (0, 30, 150)] == [1.0, 0.5, 0.25]


def test_last_step_of_int32_is_finite():
    rate = inverse_sqrt_schedule(1.0, 100)
    expected = np.sqrt(100 / (2**31 - 1))
    np.testing.assert_allclose(rate(2**31 - 1), expected, rtol=1e-6)


def test_timescale_may_be_traced():
    def at(timescale):
        return inverse_sqrt_schedule(1.0, 5, timescale=timescale)(35)

    np.testing.assert_allclose(jax.jit(at)(10.0), 0.5, rtol=1e-6)
    # ½·n/s²·(1 + n/s)^(−3/2) at n = 30, s = 10
    np.testing.assert_allclose(jax.grad(at)(10.0), 0.15 / 8, rtol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"warmup_steps": 0}, "Without a warm-up, give timescale"),
        ({"warmup_steps": -3, "timescale": 5}, "warmup_steps must be 0 or more"),
        ({"warmup_steps": "3"}, "warmup_steps must be a plain number"),
        ({"warmup_steps": 3, "timescale": 0}, "timescale must be positive, got 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(
        gradtx.ArgumentError, match=f"inverse_sqrt_schedule: .*{message}"
    ):
        inverse_sqrt_schedule(1.0, **kwargs)
