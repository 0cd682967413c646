"""Lion and its softer forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("lion", "scale_by_lion")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    # the bound of smooth rules holds: no sign of the sequence hangs on a rounding
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


def test_every_step_has_one_length():
    tx = gradtx.lion(0.25, weight_decay=0.0)
    params = {"w": jnp.zeros(4)}
    state = tx.init(params)
    for t in range(5):
        grads = {"w": jnp.array([1e-6, -3.0, 1e4 * (-1) ** t, 0.0])}
        updates, state = tx.update(grads, state, params)
        assert abs(updates["w"]).tolist() == [0.25, 0.25, 0.25, 0.0]


def test_the_sign_is_of_the_momentum_before_this_step():
    # 0.5·8 − 0.5·6 > 0, while with the new momentum, 1, it would be below
    tx = gradtx.scale_by_lion(b1=0.5, b2=0.5)
    state = gradtx.ScaleByLionState(jnp.int32(0), {"w": jnp.array([8.0])})
    updates, state = tx.update({"w": jnp.array([-6.0])}, state)
    assert updates["w"].tolist() == [1.0]
    assert state.mu["w"].tolist() == [1.0]


def test_softer_forms_are_the_sign_for_large_arguments():
    grads = {"w": jnp.array([100.0, -100.0, 0.0])}
    for tx in (
        gradtx.scale_by_lion(mode="smooth", smooth_beta=4.0),
        gradtx.scale_by_lion(mode="refined"),
    ):
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_array_equal(updates["w"], [1.0, -1.0, 0.0])


def test_an_unknown_mode_raises():
    with pytest.raises(gradtx.ArgumentError, match=r"scale_by_lion: mode must be one"):
        gradtx.scale_by_lion(mode="soft")  # type: ignore[arg-type]
