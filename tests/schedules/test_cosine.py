"""Half a cosine."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import gradtx
from gradtx.schedules import cosine_decay_schedule
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values


@pytest.mark.parametrize(
    "args",
    [
        (1.0, 100),
        (0.3, 37, 0.1),
        (0.3, 37, 0.1, 2.0),
        (0.3, 37, 0.0, 0.5),
        (3, 1),
        (1.0, 50, 2.0, 1),
        (0.0, 50),
        (1.0, 1e2),
    ],
)
def test_values_equal_optax(args):
    assert_equals_optax("cosine_decay_schedule", *args)


@pytest.mark.parametrize(("alpha", "exponent"), [(0.0, 1.0), (0.1, 2.0), (1.5, 0.5)])
def test_values_equal_the_definition(alpha, exponent):
    def formula(t):
        cosine = 0.5 * (1 + math.cos(math.pi * min(t, 90) / 90))
        return 0.3 * ((1 - alpha) * cosine**exponent + alpha)

    assert_equals_formula(cosine_decay_schedule(0.3, 90, alpha, exponent), formula)


@hypothesis.given(
    init=st.floats(1e-6, 1e3),
    steps=st.integers(1, 129),
    alpha=st.floats(1e-6, 1),
)
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
def test_value_falls_from_start_to_end(init, steps, alpha):
    found = values(cosine_decay_schedule(init, steps, alpha))
    # the sum of two shares rounds twice
    np.testing.assert_allclose(found[0], init, rtol=2e-7)
    np.testing.assert_allclose(found[steps:], init * alpha, rtol=2e-7)
    assert (np.diff(found) <= 2e-7 * init).all()


def test_length_beyond_int32():
    decay = cosine_decay_schedule(1.0, 4 * 10**9)
    expected = 0.5 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(decay(10**9), expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [0, -5])
def test_length_that_is_not_positive_is_refused(steps):
    message = rf"cosine_decay_schedule: decay_steps must be positive, got {steps}\. For"
    with pytest.raises(gradtx.ArgumentError, match=message):
        cosine_decay_schedule(1.0, steps)


def test_negative_exponent_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="exponent must be 0 or more"):
        cosine_decay_schedule(1.0, 10, exponent=-1.0)
