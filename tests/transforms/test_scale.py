"""Scaling by numbers, schedules and the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

GRADS = {"w": jnp.array([2.0, -4.0])}


def _halving(step):
    return 0.5 ** (step.astype(float) + 1)


def _trajectory(tx, steps=3):
    state, made = tx.init(GRADS), []
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, GRADS)
        made.append(np.asarray(updates["w"]))
    return np.stack(made), state


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gradtx.scale(0.3), optax.scale(0.3)),
        (gradtx.scale_by_schedule(_halving), optax.scale_by_schedule(_halving)),
        (gradtx.scale_by_learning_rate(0.3), optax.scale_by_learning_rate(0.3)),
        (
            gradtx.scale_by_learning_rate(_halving),
            optax.scale_by_learning_rate(_halving),
        ),
        (
            gradtx.scale_by_learning_rate(0.3, flip_sign=False),
            optax.scale_by_learning_rate(0.3, flip_sign=False),
        ),
    ],
    ids=lambda tx: repr(tx) if isinstance(tx, gradtx.GradientTransformation) else "",
)
def test_numbers_equal_optax(ours, theirs, lenient):
    np.testing.assert_array_equal(_trajectory(ours)[0], _trajectory(theirs)[0])


def test_learning_rate_in_use_is_in_the_state():
    for rate in (0.25, jnp.array(0.25), gradtx.schedules.constant_schedule(0.25)):
        tx = gradtx.scale_by_learning_rate(rate)
        state = tx.init(GRADS)
        assert state.step_size.dtype == jnp.float32
        assert float(state.step_size) == 0.25
    tx = gradtx.scale_by_learning_rate(_halving)
    assert float(tx.init(GRADS).step_size) == 0.5
    assert float(_trajectory(tx)[1].step_size) == 0.125


def test_constant_and_schedule_have_one_state():
    constant = gradtx.scale_by_learning_rate(0.1).init(GRADS)
    scheduled = gradtx.scale_by_learning_rate(_halving).init(GRADS)
    assert jax.tree.structure(constant) == jax.tree.structure(scheduled)


def test_without_a_learning_rate_it_still_descends():
    made, _ = _trajectory(gradtx.scale_by_learning_rate())
    np.testing.assert_array_equal(made[0], [-2.0, 4.0])


def test_count_saturates():
    tx = gradtx.scale_by_schedule(lambda step: 1.0)
    state = tx.init(GRADS)._replace(count=jnp.int32(2**31 - 1))
    _, state = tx.update(GRADS, state)
    assert int(state.count) == 2**31 - 1


def test_constant_for_a_schedule_is_named():
    with pytest.raises(gradtx.ArgumentError, match=r"step_size_fn.*0\.1.*use scale"):
        gradtx.scale_by_schedule(0.1)  # type: ignore[arg-type]


def test_gradients_that_contradict_the_parameters_are_named():
    tx, params = gradtx.sgd(0.1), {"w": jnp.ones((4, 3))}
    state = tx.init(params)
    with pytest.raises(gradtx.ShapeError, match=r"updates\['w'\]: expected \(4, 3\)"):
        tx.update({"w": jnp.ones(3)}, state, params)
    with pytest.raises(gradtx.TreeMismatchError, match=r"updates\['w'\] is missing"):
        tx.update({}, state, params)


def test_learning_rate_is_exact_in_64_bits(x64):
    g = jnp.ones(1)
    tx = gradtx.scale_by_learning_rate(lambda step: 0.1)
    assert float(tx.update(g, tx.init(g))[0][0]) == -0.1
