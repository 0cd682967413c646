"""One rise and one long fall."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import gradtx
from gradtx.schedules import cosine_onecycle_schedule, linear_onecycle_schedule
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values


@pytest.mark.parametrize(
    "args",
    [
        (100, 1.0),
        (10, 1000, 0.3, 0.7, 10.0, 100.0),
        (57, 0.3, 0.0, 0.5),
        (57, 0.3, 0.29, 0.9, 1.0, 1.0),
        (1e2, 1.0),
    ],
)
def test_lines_equal_optax(args):
    assert_equals_optax("linear_onecycle_schedule", *args)


@pytest.mark.parametrize(
    "args",
    [(100, 1.0), (5, 1000, 0.4, 10.0, 100.0), (57, 0.3, 0.0), (2, 1.0), (1, 1.0)],
)
def test_cosines_equal_optax(args):
    assert_equals_optax("cosine_onecycle_schedule", *args)


def test_lines_equal_their_definition():
    xs, ys = [0, 20, 60, 100], [0.5, 2.0, 0.5, 0.005]
    cycle = linear_onecycle_schedule(100, 2.0, 0.2, 0.6, 4.0, 100.0)
    assert_equals_formula(cycle, lambda t: float(np.interp(t, xs, ys)))


def test_cosines_equal_their_definition():
    def formula(t):
        start, end, x = (0.5, 2.0, t / 20) if t < 20 else (2.0, 0.005, (t - 20) / 80)
        return start + (end - start) * (1 - math.cos(math.pi * min(x, 1))) / 2

    cycle = cosine_onecycle_schedule(100, 2.0, 0.2, 4.0, 100.0)
    assert_equals_formula(cycle, formula)


@hypothesis.given(
    steps=st.integers(2, 120), start=st.floats(0, 1), final=st.floats(0, 1)
)
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
def test_no_value_lies_above_the_peak_or_below_the_end(steps, start, final):
    start, final = sorted([start, final])
    for cycle in (
        linear_onecycle_schedule(steps, 1.0, start, final, 10.0, 10.0),
        cosine_onecycle_schedule(steps, 1.0, start, 10.0, 10.0),
    ):
        found = values(cycle)
        np.testing.assert_allclose(found[steps:], 0.01, rtol=1e-5)
        assert (found <= 1 + 1e-6).all()
        assert (found >= 0.01 - 1e-6).all()


def test_knots_on_one_step_both_count():
    # optax keeps the factor of the last one only and never reaches the peak
    up = linear_onecycle_schedule(10, 1.0, 1.0, 1.0, 4.0, 2.0)
    assert [float(up(t)) for t in (0, 5, 10)] == [0.25, 0.625, 0.125]
    short = linear_onecycle_schedule(1, 1.0, div_factor=4.0, final_div_factor=2.0)
    assert [float(short(t)) for t in (0, 1)] == [0.25, 0.125]


@pytest.mark.parametrize("make", [linear_onecycle_schedule, cosine_onecycle_schedule])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"transition_steps": 0}, "transition_steps must be positive, got 0"),
        ({"transition_steps": "9"}, "transition_steps must be a plain number"),
        ({"div_factor": 0.0}, "div_factor must be positive"),
        ({"final_div_factor": -1}, "final_div_factor must be positive"),
        ({"pct_start": 1.5}, r"pct_start must be .* in \[0, 1\], got 1\.5"),
        ({"pct_start": -0.1}, r"pct_start must be .* in \[0, 1\], got -0\.1"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(make, kwargs, message):
    with pytest.raises(gradtx.ArgumentError, match=f"{make.__name__}: {message}"):
        make(**{"transition_steps": 10, "peak_value": 1.0} | kwargs)


def test_shares_out_of_order_are_refused():
    with pytest.raises(gradtx.ArgumentError, match=r"pct_final.*got 0\.2 < 0\.5"):
        linear_onecycle_schedule(10, 1.0, pct_start=0.5, pct_final=0.2)
