"""Averages in place of a schedule; the trajectories are in optimizers/test_adaptive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def _run(tx, params, steps):
    def step(carry, t):
        params, state = carry
        grads = jax.tree.map(lambda p: p - 1 + jnp.sin(t).astype(p.dtype), params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), state.z

    carry = (params, tx.init(params))
    return jax.jit(lambda: jax.lax.scan(step, carry, jnp.arange(steps, dtype=float)))()


def test_evaluation_is_at_the_weighted_mean_of_the_iterates():
    rate = gradtx.warmup_constant_schedule(0.01, 0.1, 20)
    tx = gradtx.schedule_free(gradtx.sgd(rate), rate, b1=0.8)
    (params, state), z = _run(tx, {"w": jnp.zeros(3)}, 100)
    weights = np.array([float(rate(t)) ** 2 for t in range(100)])
    mean = np.average(z["w"], axis=0, weights=weights)
    found = gradtx.schedule_free_eval_params(state, params)
    np.testing.assert_allclose(found["w"], mean, rtol=1e-5)  # of 100 sums in float32


def test_the_sum_of_weights_does_not_stall_in_bfloat16():
    # ALGORITHMS.md, section 1, defect 2: optax's sum stops at 312 of 1500
    tx = gradtx.schedule_free_sgd(1.0)
    (_, state), _ = _run(tx, {"w": jnp.zeros(3, jnp.bfloat16)}, 1500)
    assert float(state.weight_sum) == 1500.0
    assert state.b1.dtype == state.max_lr.dtype == jnp.float32


def test_the_first_step_of_a_warm_up_moves():
    # ALGORITHMS.md, section 1, defect 3: optax's first learning rate is 0
    tx, p = gradtx.schedule_free_adamw(0.5, warmup_steps=5), {"w": jnp.ones(1)}
    updates, state = tx.update(p, tx.init(p), p)
    np.testing.assert_allclose(updates["w"], [-0.1], rtol=1e-5)
    assert float(state.max_lr) == pytest.approx(0.1)


def test_a_rate_of_zero_has_no_weight():
    tx, p = gradtx.schedule_free_sgd(lambda t: jnp.zeros(())), {"w": jnp.ones(1)}
    updates, state = tx.update(p, tx.init(p), p)
    assert updates["w"].tolist() == [0.0]
    assert float(state.weight_sum) == 0.0


def test_the_state_is_found_inside_a_chain():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.schedule_free_sgd(0.1))
    p = {"w": jnp.ones(2), "n": jnp.arange(2)}
    found = gradtx.schedule_free_eval_params(tx.init(p), p)
    assert found["w"].tolist() == [1.0, 1.0]
    assert found["n"].tolist() == [0, 1]
    with pytest.raises(gradtx.ArgumentError, match="one ScheduleFreeState, got 0"):
        gradtx.schedule_free_eval_params(gradtx.adam(0.1).init(p), p)
    with pytest.raises(gradtx.ArgumentError, match=r"b1 must lie in \(0, 1\]"):
        gradtx.schedule_free(gradtx.sgd(0.1), 0.1, b1=0.0)


def test_iterates_have_the_dtype_that_is_asked_for():
    tx = gradtx.schedule_free_sgd(0.1, state_dtype="bfloat16")
    assert tx.init({"w": jnp.ones(2)}).z["w"].dtype == jnp.bfloat16
