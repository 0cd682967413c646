"""Given values at given steps."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.schedules import (
    join_schedules,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
)
from tests.schedules._values import assert_equals_formula, assert_equals_optax, values

KNOTS = {10: 0.1, 64: 2.0, 25: 0.3}  # in no order


@pytest.mark.parametrize(
    "knots", [KNOTS, None, {}, {0: 0.5, 7: 0.0}, {1: 1, 2: 3}, {-5: 0.5, 9: 2.0}]
)
def test_jumps_equal_optax(knots):
    assert_equals_optax("piecewise_constant_schedule", 0.7, knots)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize(
    "knots", [KNOTS, None, {}, {0: 2.0, 5: 3.0}, {1: 1, 2: 3}, {-5: 0.5, 9: 2.0}]
)
def test_interpolation_equals_optax(kind, knots):
    assert_equals_optax("piecewise_interpolate_schedule", kind, 13.0, knots)


def test_jumps_equal_their_definition():
    def formula(t):
        return 3 * math.prod(scale for b, scale in KNOTS.items() if t >= b)

    assert_equals_formula(piecewise_constant_schedule(3, KNOTS), formula)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_interpolation_equals_its_definition(kind):
    points = [(0, 3.0), (10, 0.3), (25, 0.09), (64, 0.18), (200, 0.18)]

    def formula(t):
        for (a, start), (b, end) in itertools.pairwise(points):
            if a <= t < b:
                x = (t - a) / (b - a)
                x = x if kind == "linear" else 0.5 * (1 - math.cos(math.pi * x))
                return start + (end - start) * x
        raise AssertionError(t)

    assert_equals_formula(piecewise_interpolate_schedule(kind, 3.0, KNOTS), formula)


def test_linear_interpolation_joins_lines():
    parts = [linear_schedule(1.0, 0.5, 10), linear_schedule(0.5, 1.5, 20)]
    path = piecewise_interpolate_schedule("linear", 1.0, {10: 0.5, 30: 3.0})
    # the two write a line from either end
    np.testing.assert_allclose(
        values(path), values(join_schedules(parts, [10])), rtol=1e-6
    )


def test_boundary_belongs_to_what_follows():
    jump = piecewise_constant_schedule(1.0, {5: 0.5})
    assert [float(jump(t)) for t in (4, 4.999, 5, 5.5)] == [1.0, 1.0, 0.5, 0.5]


def test_boundaries_beyond_int32_are_not_reached():
    jump = piecewise_constant_schedule(1.0, {5: 0.5, 10**12: 0.5})
    assert float(jump(10**9)) == 0.5
    path = piecewise_interpolate_schedule("linear", 1.0, {5: 0.5, 10**12 + 5: 0.0})
    np.testing.assert_allclose(path(10**9), 0.5 * (1 - 1e-3), rtol=1e-6)


def test_traced_factors():
    def at(scale, step):
        return piecewise_constant_schedule(2.0, {5: scale, 7: 0.5})(step)

    slope = jax.vmap(jax.grad(at), (None, 0))(jnp.float32(0.25), jnp.array([4, 5, 7]))
    np.testing.assert_array_equal(slope, [0.0, 2.0, 1.0])


def test_hundred_boundaries_cost_no_more_operations_than_two():
    def operations(knots):
        made = piecewise_constant_schedule(1.0, {10 * k: 0.9 for k in range(1, knots)})
        text = str(jax.make_jaxpr(made)(jnp.int32(3)))
        return sum(text.count(op) for op in (" lt ", " le ", " select_n", " gather"))

    assert operations(100) == operations(3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (piecewise_constant_schedule, "piecewise_constant_schedule"),
        (
            lambda *args: piecewise_interpolate_schedule("linear", *args),
            "piecewise_interpolate_schedule",
        ),
    ],
    ids=["constant", "interpolate"],
)
def test_bad_knots_are_named(make, name):
    message = rf"{name}: boundaries_and_scales\[20\] must be 0 or more, got -0\.5"
    with pytest.raises(gradtx.ArgumentError, match=message):
        make(1.0, {10: 0.5, 20: -0.5})
    with pytest.raises(gradtx.ArgumentError, match=rf"{name}: .* key 'x' must be a"):
        make(1.0, {"x": 0.5})


def test_unknown_interpolation_is_named():
    with pytest.raises(gradtx.ArgumentError, match=r'"linear" or "cosine", got \'cub'):
        piecewise_interpolate_schedule("cubic", 1.0, {5: 0.5})
