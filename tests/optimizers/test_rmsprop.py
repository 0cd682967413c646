"""RMSProp in all its forms, and the links that it is made of."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers import _cases, _paths

CASES = _cases.cases("rmsprop", "scale_by_stddev")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float64_path_is_that_of_the_paper(case):
    truth = _cases.reference_path(case)
    assert _paths.strict_error(_cases.ours(case, "double"), truth) <= _cases.DOUBLE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32_path_is_near_the_truth(case):
    truth = _cases.reference_path(case)
    assert _paths.error(_cases.ours(case, "single"), truth) <= _cases.SINGLE


@pytest.mark.usefixtures("x64")
def test_corrected_with_the_root_outside_is_adam_without_momentum():
    rms = gradtx.scale_by_rms(0.875, 1e-3, eps_in_sqrt=False, bias_correction=True)
    adam = gradtx.scale_by_adam(b1=0.0, b2=0.875, eps=1e-3)
    for ours, theirs in zip(walk(rms), walk(adam), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_the_place_of_momentum_matters_only_while_the_learning_rate_changes():
    def both(rate):
        return [
            np.stack(walk(gradtx.rmsprop(rate, momentum=0.5, momentum_after=place)))
            for place in ("learning_rate", "scaling")
        ]

    np.testing.assert_allclose(*both(0.125), rtol=1e-14)
    early, late = both(lambda t: jnp.where(t == 0, 1.0, 0.0))
    # after the learning rate the first step rolls on, after the scaling it stops
    assert abs(early[1]).min() > 0
    assert abs(late[1]).max() == 0


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_constant_gradient_keeps_the_variance_from_going_below_zero(inside, correct):
    # optax's root of a rounding error is NaN here, ALGORITHMS.md, section 1
    tx = gradtx.scale_by_stddev(eps_in_sqrt=inside, bias_correction=correct)
    grads = {"w": jnp.array([0.1, 3.0, -7.7], jnp.float32)}
    state = tx.init(grads)
    for _ in range(300):
        updates, state = tx.update(grads, state)
        assert jnp.isfinite(updates["w"]).all()


def test_initial_scale_is_the_first_mean_of_squares():
    tx = gradtx.scale_by_rms(decay=0.75, eps=0.0, initial_scale=4.0)
    params = {"w": jnp.zeros(2)}
    assert tx.init(params).nu["w"].tolist() == [4.0, 4.0]
    updates, _ = tx.update({"w": jnp.array([2.0, 6.0])}, tx.init(params))
    np.testing.assert_allclose(updates["w"], [1.0, 6 / np.sqrt(12)], rtol=1e-6)


def test_coupled_decay_enters_the_squares_and_decoupled_decay_does_not():
    params, grads = {"w": jnp.array([2.0])}, {"w": jnp.array([0.0])}
    tx = gradtx.rmsprop(1.0, decay=0.75, eps=0.0, weight_decay=0.5)
    updates, state = tx.update(grads, tx.init(params), params)
    assert state.scale_by_rms.nu["w"].tolist() == [0.25]
    assert updates["w"].tolist() == [-2.0]


def test_only_a_momentum_of_none_keeps_no_buffer():
    # a momentum that is 0 for now may be tuned later, and the state must not change
    params = {"w": jnp.ones(1)}
    assert "trace" not in gradtx.rmsprop(0.1).init(params)._fields
    assert "trace" in gradtx.rmsprop(0.1, momentum=0.0).init(params)._fields


def test_no_decay_needs_no_parameters():
    tx = gradtx.rmsprop(0.1)
    tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)}))
    tx = gradtx.rmsprop(0.1, weight_decay=0.1)
    with pytest.raises(gradtx.MissingArgumentError, match="params=None"):
        tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)}))


def test_momentum_after_must_be_a_place():
    with pytest.raises(gradtx.ArgumentError, match="\"scaling\", got 'decay'"):
        gradtx.rmsprop(0.1, momentum_after="decay")  # type: ignore[arg-type]


def walk(tx):
    """Return the updates of six steps on gradients of one sequence."""
    found, state = [], tx.init({"w": jnp.zeros(3)})
    for t in range(1, 7):
        grads = {"w": jnp.array([1.0, -0.5, 4.0]) * (-0.75) ** t}
        updates, state = tx.update(grads, state)
        found.append(np.asarray(updates["w"]))
    return found
