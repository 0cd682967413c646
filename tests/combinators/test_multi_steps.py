"""`MultiSteps` is `accumulate` with optax's methods, and can skip gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


def _gradients(count):
    keys = jax.random.split(jax.random.key(0), count)
    return [gradtx.tree.random_like(key, PARAMS) for key in keys]


@pytest.mark.usefixtures("lenient")  # optax promotes
@pytest.mark.parametrize("mean", [True, False])
def test_takes_the_steps_of_optax(mean):
    ours = gradtx.MultiSteps(gradtx.adamw(0.1), 3, use_grad_mean=mean)
    theirs = optax.MultiSteps(optax.adamw(0.1), 3, use_grad_mean=mean)
    state, other, p, q = ours.init(PARAMS), theirs.init(PARAMS), PARAMS, PARAMS
    for grads in _gradients(9):
        updates, state = ours.update(grads, state, p)
        expected, other = theirs.update(grads, other, q)
        p = gradtx.apply_updates(p, updates)
        q = optax.apply_updates(q, expected)
        assert bool(ours.has_updated(state)) == bool(theirs.has_updated(other))
        for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True):
            # three steps of 0.1; optax's bias correction is off by 6e-6
            np.testing.assert_allclose(a, b, atol=3 * 0.1 * 1e-5)


def test_skipped_gradients_count_for_nothing():
    skip = gradtx.skip_not_finite
    ours = gradtx.MultiSteps(gradtx.adam(0.1), 2, should_skip_update_fn=skip)
    step = jax.jit(ours.update)
    good = _gradients(4)
    bad = gradtx.tree.full_like(PARAMS, jnp.nan)
    plain, expected = ours.init(PARAMS), None
    for grads in good:
        expected, plain = step(grads, plain, PARAMS)
    state = ours.init(PARAMS)
    for grads in [bad, good[0], bad, bad, good[1], good[2], bad, good[3]]:
        updates, state = step(grads, state, PARAMS)
        assert bool(state.skip_state["should_skip"]) == (grads is bad)
        assert int(state.skip_state["num_not_finite"]) == (3 if grads is bad else 0)
        if grads is bad:
            assert all(not x.any() for x in jax.tree.leaves(updates))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(updates), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(
        jax.tree.leaves(plain[:4]), jax.tree.leaves(state[:4]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_large_updates_are_skipped_without_overflow():
    skip = functools.partial(gradtx.skip_large_updates, max_squared_norm=100.0)
    none = jnp.zeros((), jnp.int32)
    verdicts = [
        bool(skip([jnp.array(x)], none, None)[0]) for x in (9.9, 10.1, np.nan, 1e30)
    ]
    assert verdicts == [False, True, True, True]
    low = [jnp.full(4, 300.0, jnp.float16)]
    report = gradtx.skip_large_updates(low, none, None, 1e6)[1]
    assert float(report["norm_squared"]) == 4 * 300.0**2


def test_a_verdict_that_is_no_bool_is_named():
    tx = gradtx.accumulate(gradtx.sgd(0.1), 2, skip=lambda g, t, p: (jnp.ones(3), ()))
    with pytest.raises(
        gradtx.ArgumentError, match=r"scalar bool first, got float32\[3"
    ):
        tx.init(PARAMS)


def test_exposes_the_transformation_and_the_inner_one():
    inner = gradtx.sgd(0.1)
    ours = gradtx.MultiSteps(inner, every_k_schedule=4)
    assert ours.inner_opt == inner
    assert ours.gradient_transformation().name == "accumulate"
    chained = gradtx.chain(gradtx.clip(1.0), ours)
    assert chained.init(PARAMS)[1].mini_step == 0
