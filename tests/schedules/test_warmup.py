"""A rise along a line, then another curve."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import gradtx
from gradtx.schedules import (
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values


@pytest.mark.parametrize("args", [(0.0, 1.0, 10), (0.1, 1.0, 1), (0.5, 0.1, 129)])
def test_constant_equals_optax(args):
    assert_equals_optax("warmup_constant_schedule", *args)


@pytest.mark.parametrize(
    "args",
    [
        (0.0, 1.0, 10, 50),
        (0.0, 1.0, 0, 50, 0.1, 2.0),
        (0.2, 3e-4, 10, 11, 3e-5),
        (0.2, 3e-4, 99, 100, 1e-3),
        (0.2, 0.0, 10, 50, -3.0),
        (0.2, 0, 10, 50),
        (1, 2, 1e1, 5e1),
    ],
)
def test_cosine_equals_optax(args):
    assert_equals_optax("warmup_cosine_decay_schedule", *args)


@pytest.mark.parametrize(
    "args",
    [
        (0.0, 1.0, 10, 5, 0.9),
        (0.0, 1.0, 10, 5, 0.9, 4, True, 0.5),
        (0.1, 1.0, 0, 5, 0.9),
        (0.1, 1.0, 3, 0, 0.9),
        (0.1, 1.0, 3, 7, 0.0),
    ],
)
def test_exponential_equals_optax(args):
    assert_equals_optax("warmup_exponential_decay_schedule", *args)


def test_constant_equals_its_definition():
    warm = warmup_constant_schedule(0.1, 2.0, 30)
    assert_equals_formula(warm, lambda t: 0.1 + (2.0 - 0.1) * min(t / 30, 1))


def test_cosine_equals_its_definition():
    def formula(t):
        if t < 20:
            return 0.1 + (2.0 - 0.1) * t / 20
        fall = 0.5 * (1 + math.cos(math.pi * min(t - 20, 80) / 80))
        return 0.3 + (2.0 - 0.3) * fall**1.5

    rate = warmup_cosine_decay_schedule(0.1, 2.0, 20, 100, 0.3, 1.5)
    assert_equals_formula(rate, formula)


def test_exponential_equals_its_definition():
    def formula(t):
        if t < 20:
            return 0.1 + (2.0 - 0.1) * t / 20
        return max(2.0 * 0.5 ** (max(t - 20 - 7, 0) / 10), 0.01)

    rate = warmup_exponential_decay_schedule(0.1, 2.0, 20, 10, 0.5, 7, end_value=0.01)
    assert_equals_formula(rate, formula)


@hypothesis.given(
    peak=st.floats(1e-6, 10),
    warmup=st.integers(0, 60),
    fall=st.integers(1, 60),
    end=st.floats(0, 1),
)
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
def test_cosine_rises_to_the_peak_and_falls_to_the_end(peak, warmup, fall, end):
    end = end * peak
    found = values(warmup_cosine_decay_schedule(0.0, peak, warmup, warmup + fall, end))
    slack = 3e-7 * peak  # a few roundings of numbers up to the peak
    assert (np.diff(found[: warmup + 1]) >= -slack).all()
    assert (np.diff(found[warmup:]) <= slack).all()
    np.testing.assert_allclose(found[warmup], peak, rtol=3e-7)
    np.testing.assert_allclose(found[warmup + fall :], end, rtol=0, atol=slack)


def test_warmup_as_long_as_the_schedule_ends_at_once():
    rate = warmup_cosine_decay_schedule(0.0, 1.0, 4, 4, 0.1)
    expected = np.array([0.0, 0.25, 0.5, 0.75, 0.1, 0.1], np.float32)
    np.testing.assert_array_equal(values(rate, np.arange(6)), expected)


def test_traced_peak_of_zero_equals_a_plain_one():
    def at(peak):
        return warmup_cosine_decay_schedule(0.2, peak, 2, 6, 0.5)(4)

    assert float(at(0.0)) == float(jax.jit(at)(0.0)) == 0.0
    assert np.isfinite(jax.grad(at)(0.0))


@pytest.mark.parametrize(
    ("warmup", "total", "message"),
    [
        (5, 4, "decay_steps must be at least warmup_steps = 5, got 4.*included"),
        (0, 0, "decay_steps must be positive, got 0"),
        (-1, 5, "warmup_steps must be 0 or more, got -1"),
        (5, None, "decay_steps must be a plain number"),
        ("5", 9, "warmup_steps must be a plain number"),
    ],
)
def test_bad_lengths_are_named(warmup, total, message):
    message = f"warmup_cosine_decay_schedule: {message}"
    with pytest.raises(gradtx.ArgumentError, match=message):
        warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)


def test_negative_warmup_is_refused():
    message = (
        "warmup_exponential_decay_schedule: warmup_steps must be 0 or more, got -2"
    )
    with pytest.raises(gradtx.ArgumentError, match=message):
        warmup_exponential_decay_schedule(0.0, 1.0, -2, 5, 0.9)


def test_length_that_is_no_number_is_named():
    message = "warmup_constant_schedule: warmup_steps must be a plain number"
    with pytest.raises(gradtx.ArgumentError, match=message):
        warmup_constant_schedule(0.0, 1.0, None)  # type: ignore[arg-type]


def test_no_warmup_starts_at_the_peak():
    assert float(warmup_constant_schedule(0.0, 1.0, 0)(0)) == 1.0
    assert float(warmup_cosine_decay_schedule(0.0, 1.0, 0, 10)(0)) == 1.0
