"""Straight lines and polynomials between two values."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.schedules import linear_schedule, polynomial_schedule
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values


@pytest.mark.parametrize(
    "args",
    [
        (0.0, 1e-3, 100),
        (1.0, 0.1, 37, 5),
        (1.0, 0.1, 1),
        (25, 10, 10, 4),
        (1.0, 0.1, 0),
        (1.0, 0.1, -3, 5),
        (1.0, 0.1, 10, -5),
        (1.0, 0.0, 1e2, 20.0),
    ],
)
def test_line_equals_optax(args):
    assert_equals_optax("linear_schedule", *args)


@pytest.mark.parametrize(
    "args",
    [
        (1.0, 0.1, 2, 40),
        (1.0, 0.1, 0.5, 40, 7),
        (0.0, 3.0, 1.5, 100),
        (25.0, 10.0, 0, 10),
        (25.0, 10.0, 2, 0),
    ],
)
def test_polynomial_equals_optax(args):
    assert_equals_optax("polynomial_schedule", *args)


@pytest.mark.parametrize("power", [0.5, 1, 2, 3.7])
def test_polynomial_equals_its_definition(power):
    def formula(t):
        n = min(max(t - 7, 0), 40)
        return 0.1 + (2.0 - 0.1) * (1 - n / 40) ** power

    assert_equals_formula(polynomial_schedule(2.0, 0.1, power, 40, 7), formula)


def test_line_equals_its_definition():
    line = linear_schedule(0.3, 2.0, 100, 11)
    assert_equals_formula(
        line, lambda t: 0.3 + (2.0 - 0.3) * min(max(t - 11, 0), 100) / 100
    )


@hypothesis.given(
    ends=st.tuples(*[st.floats(-1e3, 1e3, width=32, allow_subnormal=False)] * 2),
    steps=st.integers(1, 120),
    begin=st.integers(0, 20),
)
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
def test_line_is_monotone_between_its_ends(ends, steps, begin):
    init, end = ends
    found = values(linear_schedule(init, end, steps, begin))
    assert found[-1] == np.float32(end) or begin + steps >= len(found)
    # (init − end) + end is init but for the rounding of the difference
    np.testing.assert_allclose(found[: begin + 1], init, rtol=0, atol=2e-7 * 1e3)
    assert (np.diff(found) * np.sign(end - init) >= 0).all()


@pytest.mark.parametrize("steps", [3, 40, 41, 49, 107])
def test_end_is_exact_when_compiled(steps):
    for power in (0.5, 1, 2):
        curve = jax.jit(polynomial_schedule(1.0, 0.0, power, steps))
        assert float(curve(steps)) == 0.0
        assert float(curve(steps + 1)) == 0.0


def test_fractional_power_of_optax_is_nan_when_compiled(lenient):
    # 40·(1/40) is above 1 in float32: why `share` exists
    theirs = jax.jit(optax.polynomial_schedule(1.0, 0.1, 0.5, 40, 7))
    ours = jax.jit(polynomial_schedule(1.0, 0.1, 0.5, 40, 7))
    assert np.isnan(theirs(47))
    assert float(ours(47)) == np.float32(0.1)


def test_counts_beyond_int32():
    line = linear_schedule(0.0, 1.0, 10**12)
    np.testing.assert_allclose(line(10**9), 1e-3, rtol=1e-4)  # 1 − 0.999 in float32
    late = linear_schedule(0.0, 1.0, 10, transition_begin=10**12)
    assert float(late(2**31 - 1)) == 0.0
    assert float(linear_schedule(0.0, 1.0, 10)(10**12)) == 1.0


def test_counts_above_the_integers_of_float32_are_exact():
    begin = 2**24 + 1  # no float32
    line = linear_schedule(0.0, 1.0, 4, begin)
    assert [float(line(begin + i)) for i in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", ["linear_schedule", "polynomial_schedule"])
@pytest.mark.parametrize("count", ["10", None, float("nan"), True, np.zeros(2)])
def test_count_that_is_no_number_is_named(name, count):
    power = {"power": 1} if name == "polynomial_schedule" else {}
    make = getattr(gradtx.schedules, name)
    with pytest.raises(gradtx.ArgumentError, match=f"{name}: transition_steps must"):
        make(0.0, 1.0, transition_steps=count, **power)
    with pytest.raises(gradtx.ArgumentError, match=f"{name}: transition_begin must"):
        make(0.0, 1.0, transition_steps=4, transition_begin=count, **power)


def test_traced_count_is_refused_clearly():
    with pytest.raises(gradtx.ArgumentError, match=r"transition_steps.*not.* traced"):
        jax.jit(lambda steps: linear_schedule(0.0, 1.0, steps)(0))(jnp.int32(4))


def test_negative_power_is_refused():
    with pytest.raises(gradtx.ArgumentError, match=r"power must be 0 or more, got -1"):
        polynomial_schedule(1.0, 0.0, -1, 10)
