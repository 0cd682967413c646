"""Stochastic gradient descent: plain, heavy ball and Nesterov."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("sgd")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


@pytest.mark.usefixtures("x64")
def test_nesterov_iterates_are_the_points_looked_ahead_to():
    # Sutskever et al. 2013, equations 3 and 4: the gradient is taken at θ + momentum·v
    momentum, rate = 0.75, 0.125
    tx = gradtx.sgd(rate, momentum, nesterov=True)
    params = {"w": jnp.array([1.0, -2.0])}
    state = tx.init(params)
    theta, velocity = np.array([1.0, -2.0]), np.zeros(2)
    curvature = np.array([1.0, 3.0])
    for _ in range(20):
        ahead = theta + momentum * velocity
        np.testing.assert_allclose(params["w"], ahead, rtol=1e-13)
        velocity = momentum * velocity - rate * curvature * ahead
        theta = theta + velocity
        updates, state = tx.update({"w": curvature * params["w"]}, state, params)
        params = gradtx.apply_updates(params, updates)


def test_only_a_momentum_of_none_keeps_no_buffer():
    # a momentum that is 0 for now may be tuned later, and the state must not change
    params = {"w": jnp.ones((2, 3))}
    sizes = [x.size for x in jax.tree.leaves(gradtx.sgd(0.1).init(params))]
    assert max(sizes) == 1
    assert "trace" in gradtx.sgd(0.1, momentum=0.0).init(params)._fields


def test_momentum_of_zero_is_plain_descent():
    grads = {"w": jnp.array([0.5, -3.0])}
    for nesterov in (False, True):
        tx = gradtx.sgd(0.5, momentum=0.0, nesterov=nesterov)
        state = tx.init(grads)
        for _ in range(2):
            updates, state = tx.update(grads, state)
            assert updates["w"].tolist() == [-0.25, 1.5]


def test_the_sum_has_the_dtype_asked_for():
    params = {"w": jnp.ones(3, jnp.float16)}
    assert gradtx.sgd(0.1, 0.9).init(params).trace.trace["w"].dtype == jnp.float16
    tx = gradtx.sgd(0.1, 0.9, accumulator_dtype="float32")
    updates, state = tx.update(params, tx.init(params))
    assert state.trace.trace["w"].dtype == jnp.float32
    assert updates["w"].dtype == jnp.float16


def test_nesterov_needs_a_momentum():
    with pytest.raises(gradtx.ArgumentError, match=r"sgd: nesterov needs a momentum"):
        gradtx.sgd(0.1, nesterov=True)
