"""AMSGrad."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("amsgrad", "scale_by_amsgrad")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


def test_the_largest_square_is_never_forgotten():
    tx = gradtx.scale_by_amsgrad(b2=0.5)
    state = tx.init({"w": jnp.zeros(1)})
    top = 0.0
    for g in (1.0, 8.0, 0.5, 0.0, 0.25):
        _, state = tx.update({"w": jnp.array([g])}, state)
        now = float(state.nu_max["w"][0])
        assert now == max(top, float(state.nu["w"][0]))
        top = now
    assert top == 32.25  # (8² + 1²/2) / 2
    assert float(state.nu["w"][0]) < 5


@pytest.mark.usefixtures("x64")
def test_while_squares_grow_it_is_adam():
    ams, adam = gradtx.scale_by_amsgrad(), gradtx.scale_by_adam()
    one, other = ams.init({"w": jnp.zeros(2)}), adam.init({"w": jnp.zeros(2)})
    for t in range(1, 10):
        grads = {"w": jnp.array([0.1, -3.0]) * t}
        ours, one = ams.update(grads, one)
        theirs, other = adam.update(grads, other)
        np.testing.assert_array_equal(ours["w"], theirs["w"])


def test_the_largest_square_of_half_precision_parameters_is_float32():
    state = gradtx.scale_by_amsgrad().init({"w": jnp.zeros(2, jnp.bfloat16)})
    assert state.nu_max["w"].dtype == jnp.float32
