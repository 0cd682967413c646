"""Adamax and its form with decoupled weight decay."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("adamax", "adamaxw")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


def test_a_step_is_no_longer_than_the_learning_rate():
    # Kingma & Ba 2014, section 7.1: |Δ| ≤ learning_rate while b1² < b2
    tx = gradtx.adamax(0.5)
    state = tx.init({"w": jnp.zeros(3)})
    for t in range(50):
        grads = {"w": jnp.array([1.0, (-1.0) ** t * 2**t, 1e-3 * t])}
        updates, state = tx.update(grads, state)
        # three roundings of the quotient and the product
        assert (abs(updates["w"]) <= 0.5 * (1 + 3 * 2**-23)).all()


def test_the_maximum_decays_and_a_larger_gradient_replaces_it():
    tx = gradtx.scale_by_adamax(b2=0.5, eps=0.0)
    state, tops = tx.init({"w": jnp.zeros(1)}), []
    for g in (-8.0, 1.0, 1.0, 3.0):
        _, state = tx.update({"w": jnp.array([g])}, state)
        tops.append(float(state.nu["w"][0]))
    assert tops == [8.0, 4.0, 2.0, 3.0]
