"""Mechanic; the trajectories are in optimizers/test_adaptive."""

import jax
import jax.numpy as jnp
import pytest

import gradtx


def test_it_finds_a_scale_that_descends():
    tx, p = gradtx.mechanize(gradtx.sgd(1.0)), {"w": jnp.array([3.0, -2.0])}

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p, state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (p, state), _ = jax.jit(lambda: jax.lax.scan(step, (p, tx.init(p)), length=400))()
    assert jnp.linalg.norm(p["w"]) < 0.1
    assert 1e-6 < float(jnp.sum(state.s)) < 100


def test_numbers_of_half_precision_parameters_are_float32():
    tx = gradtx.mechanize(gradtx.sgd(1.0), num_betas=3)
    state = tx.init({"w": jnp.ones(2, jnp.bfloat16)})
    assert {
        (jnp.dtype(x.dtype), x.shape) for x in (state.r, state.m, state.v, state.s)
    } == {(jnp.dtype("float32"), (3,))}
    assert float(state.s[0]) == pytest.approx(1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(gradtx.ArgumentError, match="num_betas must be"):
        gradtx.mechanize(gradtx.sgd(1.0), num_betas=0)
    with pytest.raises(gradtx.ArgumentError, match="s_init must be positive"):
        gradtx.mechanize(gradtx.sgd(1.0), s_init=0.0)
