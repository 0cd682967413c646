"""AdaGrad with the root's eps in both places."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("adagrad")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


def test_steps_of_a_constant_gradient_fall_with_the_root_of_their_number():
    tx = gradtx.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
    grads = {"w": jnp.array([3.0, -0.01])}
    state = tx.init(grads)
    for t in range(1, 10):
        updates, state = tx.update(grads, state)
        # the sum, its root and the quotient round a dozen times by 2^-24
        np.testing.assert_allclose(
            updates["w"] * np.sqrt(t), [1.0, -1.0], rtol=12 * 2**-24
        )


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_summed_yet_means_no_step(inside):
    tx = gradtx.scale_by_rss(0.0, eps=0.0, eps_in_sqrt=inside)
    grads = {"w": jnp.array([0.0, 1e-30, 2.0])}  # the square of the second is 0 too
    updates, state = tx.update(grads, tx.init(grads))
    assert updates["w"].tolist() == [0.0, 0.0, 1.0]
    assert state.sum_of_squares["w"].tolist() == [0.0, 0.0, 4.0]


def test_the_sum_saturates_where_it_would_overflow():
    tx = gradtx.scale_by_rss()
    grads = {"w": jnp.array([1.8e19, 1.0])}  # the square is just below the largest
    updates, state = grads, tx.init(grads)
    for _ in range(3):
        updates, state = tx.update(grads, state)
    assert jnp.isfinite(state.sum_of_squares["w"]).all()
    assert (updates["w"] > 0.5).all()
