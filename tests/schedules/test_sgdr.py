"""Warm restarts."""

import numpy as np
import pytest

import gradtx
from gradtx.schedules import sgdr_schedule, warmup_cosine_decay_schedule
from tests.schedules._values import assert_equals_optax, one_by_one, values

FIRST = {
    "init_value": 0.0,
    "peak_value": 1.0,
    "decay_steps": 20,
    "warmup_steps": 5,
    "end_value": 0.1,
}
SECOND = FIRST | {"decay_steps": 60, "peak_value": 0.5, "exponent": 2.0}


@pytest.mark.parametrize(
    "cycles",
    [[FIRST], [FIRST, SECOND], [FIRST, SECOND, FIRST | {"warmup_steps": 0}]],
    ids=len,
)
def test_values_equal_optax(cycles):
    assert_equals_optax("sgdr_schedule", cycles)


def test_each_cycle_runs_its_own_length_and_the_last_one_stays():
    first, second = (warmup_cosine_decay_schedule(**c) for c in (FIRST, SECOND))
    waves, steps = sgdr_schedule([FIRST, SECOND]), range(0, 130, 5)
    expected = [first(t) if t < 20 else second(t - 20) for t in steps]
    np.testing.assert_array_equal(one_by_one(waves, steps), np.array(expected))
    np.testing.assert_allclose(values(waves)[80:], 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("cycles", "message"),
    [
        ([], "at least one cycle, got none"),
        ([FIRST, {"peak_value": 1.0}], r"cosine_kwargs\[1\].*missing.*'init_value'"),
        ([FIRST | {"steps": 3}], r"cosine_kwargs\[0\].*unexpected.*'steps'"),
        ([7], r"cosine_kwargs\[0\].*got 7: .*mapping"),
        (
            [FIRST, FIRST | {"decay_steps": -1}],
            r"cosine_kwargs\[1\].*decay_steps must be positive, got -1",
        ),
    ],
    ids=["none", "missing", "unexpected", "number", "negative"],
)
def test_bad_cycles_are_named(cycles, message):
    with pytest.raises(gradtx.ArgumentError, match=f"^sgdr_schedule: .*{message}"):
        sgdr_schedule(cycles)
