"""The trapezoid."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import gradtx
from gradtx.schedules import (
    linear_schedule,
    warmup_cosine_decay_schedule,
    warmup_stable_decay_schedule,
)
from tests.schedules._values import assert_equals_formula, values

FALLS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


@pytest.mark.parametrize("shape", FALLS)
@pytest.mark.parametrize("lengths", [(10, 50, 40), (0, 50, 40), (10, 0, 40), (0, 0, 1)])
def test_values_equal_the_definition(shape, lengths):
    warmup, stable, decay = lengths

    def formula(t):
        if t < warmup:
            return 0.1 + (2.0 - 0.1) * t / warmup
        x = min(max(t - warmup - stable, 0) / decay, 1)
        return 0.3 + (2.0 - 0.3) * FALLS[shape](x)

    rate = warmup_stable_decay_schedule(
        0.1, 2.0, warmup, stable, decay, end_value=0.3, decay_shape=shape
    )
    assert_equals_formula(rate, formula)


def test_without_a_plateau_the_cosine_is_that_of_warmup_cosine():
    rate = warmup_stable_decay_schedule(0.0, 1.0, 10, 0, 40, 0.1, decay_shape="cosine")
    other = warmup_cosine_decay_schedule(0.0, 1.0, 10, 50, 0.1)
    np.testing.assert_allclose(values(rate), values(other), rtol=1e-6)


def test_the_line_is_that_of_linear_schedule():
    rate = warmup_stable_decay_schedule(0.0, 1.0, 0, 20, 40, 0.1)
    np.testing.assert_array_equal(
        values(rate), values(linear_schedule(1.0, 0.1, 40, transition_begin=20))
    )


@hypothesis.given(
    shape=st.sampled_from(list(FALLS)),
    lengths=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40)),
    peak=st.floats(1e-5, 10),
)
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
def test_rise_plateau_and_fall(shape, lengths, peak):
    warmup, stable, _ = lengths
    rate = warmup_stable_decay_schedule(0.0, peak, *lengths, decay_shape=shape)
    found = values(rate)
    assert (np.diff(found[: warmup + 1]) >= 0).all()
    assert (found[warmup : warmup + stable + 1] == np.float32(peak)).all()
    assert (np.diff(found[warmup + stable :]) <= 0).all()
    assert (found[sum(lengths) :] == 0).all()


@pytest.mark.parametrize("shape", FALLS)
def test_end_is_exact_when_compiled(shape):
    for decay in (3, 41, 49, 107):
        rate = warmup_stable_decay_schedule(0.0, 1.0, 3, 4, decay, decay_shape=shape)
        assert float(jax.jit(rate)(7 + decay)) == 0.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"decay_shape": "sqrt"}, "decay_shape must be one of 'linear', .*got 'sqrt'"),
        ({"decay_steps": 0}, "decay_steps must be positive, got 0.*warmup_constant"),
        ({"stable_steps": -1}, "stable_steps must be 0 or more, got -1"),
        ({"stable_steps": None}, "stable_steps must be a plain number"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more, got -1"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(kwargs, message):
    given = {"warmup_steps": 1, "stable_steps": 2, "decay_steps": 3} | kwargs
    message = f"warmup_stable_decay_schedule: {message}"
    with pytest.raises(gradtx.ArgumentError, match=message):
        warmup_stable_decay_schedule(0.0, 1.0, **given)
