"""Momentum and running means."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

GRADS = jax.random.normal(jax.random.key(0), (20, 5))


def _run(tx, dtype="float32"):
    params = jnp.zeros(5, dtype)

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, tx.init(params), GRADS.astype(dtype))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gradtx.trace(0.9), optax.trace(0.9)),
        (gradtx.trace(0.9, nesterov=True), optax.trace(0.9, nesterov=True)),
        (gradtx.ema(0.9), optax.ema(0.9)),
        (gradtx.ema(0.9, debias=False), optax.ema(0.9, debias=False)),
    ],
    ids=lambda tx: repr(tx) if isinstance(tx, gradtx.GradientTransformation) else "",
)
def test_numbers_equal_optax(ours, theirs, lenient):
    np.testing.assert_allclose(_run(ours)[1], _run(theirs)[1], rtol=3e-6, atol=1e-6)


def test_debiased_mean_of_a_constant_is_the_constant():
    tx = gradtx.ema(0.999)
    state = tx.init(jnp.zeros(1))
    for _ in range(5):
        updates, state = tx.update(jnp.full(1, 3.0), state)
        np.testing.assert_allclose(updates, 3.0, rtol=1e-6)


@pytest.mark.parametrize("make", [gradtx.trace, gradtx.ema])
def test_accumulator_dtype_is_kept(make):
    state, updates = _run(make(0.9, accumulator_dtype="float32"), "bfloat16")
    assert state[-1].dtype == jnp.float32
    assert updates.dtype == jnp.bfloat16
    state, _ = _run(make(0.9), "bfloat16")
    assert state[-1].dtype == jnp.bfloat16


@pytest.mark.parametrize("make", [gradtx.trace, gradtx.ema])
@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan")])
def test_decay_outside_its_range_is_named(make, bad):
    with pytest.raises(gradtx.ArgumentError, match=r"decay must lie in \[0, 1"):
        make(bad)


def test_a_mean_that_keeps_all_is_refused_and_a_sum_is_not():
    with pytest.raises(gradtx.ArgumentError, match="decay must lie"):
        gradtx.ema(1.0)
    tx = gradtx.trace(1.0)
    state = tx.init(jnp.zeros(1))
    for _ in range(3):
        _, state = tx.update(jnp.full(1, 2.0), state)
    assert state.trace.tolist() == [6.0]


def test_unknown_dtype_is_named():
    with pytest.raises(gradtx.ArgumentError, match="accumulator_dtype must be a dtype"):
        gradtx.trace(0.9, accumulator_dtype="float33")
