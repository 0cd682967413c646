"""Schedules one after the other."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    join_schedules,
    linear_schedule,
)
from tests.schedules._values import assert_equal, values


@pytest.mark.parametrize(
    "boundaries", [(), (10,), (0,), (10, 30, 31), (10, 10, 20), (0, 0, 0), (-5, 20)]
)
def test_values_equal_optax(boundaries):
    makers = ["linear_schedule", "cosine_decay_schedule", "polynomial_schedule"]
    args = [(0.1, 1.0, 10), (1.0, 15), (0.5, 2.0, 2, 20)]
    picked = [i % 3 for i in range(len(boundaries) + 1)]
    ours, theirs = (
        [getattr(room, makers[i])(*args[i]) for i in picked]
        for room in (gradtx.schedules, optax.schedules)
    )
    assert_equal(
        join_schedules(ours, boundaries), optax.join_schedules(theirs, boundaries)
    )


def test_each_piece_counts_from_its_own_beginning():
    def count(step):
        return step

    joined = join_schedules([count, count, count], [4, 6])
    assert values(joined, np.arange(9)).tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]


def test_any_callable_is_a_piece(lenient):
    pieces = [optax.linear_schedule(0.0, 1.0, 4), lambda step: 7, constant_schedule(2)]
    joined = join_schedules(pieces, [4, 6])
    assert [float(joined(t)) for t in (1, 4, 5, 6)] == [0.25, 7.0, 7.0, 2.0]


@hypothesis.given(
    levels=st.lists(st.floats(0.1, 10), min_size=2, max_size=4),
    steps=st.lists(st.integers(1, 30), min_size=4, max_size=4),
)
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
def test_lines_that_meet_join_without_a_jump(levels, steps):
    ends = zip(levels, levels[1:], steps)
    lines = [linear_schedule(a, b, n) for a, b, n in ends]
    boundaries = np.cumsum(steps)[: len(lines) - 1].tolist()
    found = values(join_schedules(lines, boundaries))
    steepest = max(abs(a - b) / n for a, b, n in zip(levels, levels[1:], steps))
    assert np.abs(np.diff(found)).max() <= steepest + 1e-5


def test_piece_is_never_asked_before_its_beginning_or_after_its_end():
    asked = {"first": [], "second": []}

    def spy(name):
        return lambda step: asked[name].append(int(step)) or 0.0

    joined = join_schedules([spy("first"), spy("second")], [5])
    for t in (0, 4, 5, 20):
        joined(t)
    assert asked == {"first": [0, 4, 5, 5], "second": [0, 0, 0, 15]}


def test_what_a_piece_would_be_elsewhere_does_not_spoil_derivatives():
    def at(value, step):
        grows = exponential_decay(value, 1, 10.0)  # infinite from step 39 on
        root = lambda step: value / jnp.sqrt(step.astype(jnp.float32) + 0.5)
        return join_schedules([grows, root], [3])(step)

    for step, expected in ((1, 10.0), (100, 1 / np.sqrt(97.5))):
        slope = jax.grad(at)(2.0, step)
        np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_arrays_of_boundaries():
    pieces = [constant_schedule(1.0), constant_schedule(2.0)]
    assert float(join_schedules(pieces, np.array([4]))(4)) == 2.0  # type: ignore[arg-type]


def test_boundary_beyond_int32_is_not_reached():
    joined = join_schedules([constant_schedule(1.0), constant_schedule(2.0)], [10**12])
    assert float(joined(2**31 - 2)) == 1.0


@pytest.mark.parametrize(
    ("pieces", "boundaries", "message"),
    [
        (2, [], "one fewer than schedules, got 0 boundaries for 2 schedules"),
        (2, [1, 2], "one fewer than schedules, got 2 boundaries for 2 schedules"),
        (0, [], "one fewer than schedules, got 0 boundaries for 0 schedules"),
        (3, [5, 4], "must not decrease, got 4 after 5"),
        (2, ["5"], r"boundaries\[0\] must be a plain number of steps, got '5'"),
        (3, [5, None], r"boundaries\[1\] must be a plain number"),
    ],
)
def test_bad_boundaries_are_named(pieces, boundaries, message):
    with pytest.raises(gradtx.ArgumentError, match=f"join_schedules: .*{message}"):
        join_schedules([cosine_decay_schedule(1.0, 5)] * pieces, boundaries)


def test_number_for_a_schedule_is_named():
    message = r"schedules\[1\] must be a function of the step, got 0\.1\. For a constan"
    with pytest.raises(gradtx.ArgumentError, match=message):
        join_schedules([constant_schedule(1.0), 0.1], [5])  # type: ignore[list-item]
