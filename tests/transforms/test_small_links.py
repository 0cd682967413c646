"""Centring, NaN and sign."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4), (0, 3)])
def test_centralize_equals_optax(shape, lenient):
    g = jax.random.normal(jax.random.key(0), shape)
    got = gradtx.centralize().update(g, gradtx.EmptyState())[0]
    expected: Any = optax.centralize().update(g, optax.EmptyState())[0]
    # subtraction of a mean leaves the rounding of numbers of size 1
    np.testing.assert_allclose(got, expected, atol=2e-7)


def test_centralize_along_flax_outputs():
    g = jax.random.normal(jax.random.key(0), (3, 4))
    tx = gradtx.centralize(kept_axis=-1)
    out = tx.update(g, tx.init(g))[0]
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-7)


def test_zero_nans_keeps_infinities_and_says_where():
    tx = gradtx.zero_nans()
    g = {"a": jnp.array([jnp.nan, jnp.inf]), "b": jnp.ones((2, 2))}
    state = tx.init(g)
    assert [bool(f) for f in jax.tree.leaves(state)] == [False, False]
    updates, state = jax.jit(tx.update)(g, state)
    np.testing.assert_array_equal(updates["a"], [0.0, np.inf])
    assert [bool(f) for f in jax.tree.leaves(state)] == [True, False]


def test_sign_of_real_and_complex():
    tx = gradtx.scale_by_sign()
    g = {"r": jnp.array([-3.0, 0.0, 2.0]), "c": jnp.array([3j])}
    out = tx.update(g, tx.init(g))[0]
    np.testing.assert_array_equal(out["r"], [-1, 0, 1])
    np.testing.assert_array_equal(out["c"], [1j])


@pytest.mark.parametrize(
    "make",
    [
        lambda cut, **axis: gradtx.centralize(kept_axis=1 - cut, **axis),
        lambda cut, **axis: gradtx.adaptive_grad_clip(0.1, axis=(0, 1), **axis),
        lambda cut, **axis: gradtx.clip_by_block_rms(0.1, **axis),
        lambda cut, **axis: gradtx.clip_by_global_norm(0.1, **axis),
    ],
)
@pytest.mark.parametrize("cut", [0, 1])
def test_sharded_leaves_mean_what_whole_leaves_mean(make, cut):
    g, p = jax.random.normal(jax.random.key(0), (2, 8, 6))
    whole = make(cut).update(g, gradtx.EmptyState(), p)[0]
    parts = [jnp.stack(jnp.split(x, 2, axis=cut)) for x in (g, p)]
    tx = make(cut, axis_name="shard")
    step = lambda g, p: tx.update(g, tx.init(p), p)[0]
    made = jax.vmap(step, axis_name="shard")(*parts)
    np.testing.assert_allclose(jnp.concatenate(made, axis=cut), whole, atol=1e-6)


def test_a_leaf_without_a_norm_has_a_trust_ratio_of_one():
    g = {"at zero": jnp.array([3.0, -4.0]), "still": jnp.zeros(2), "w": jnp.ones(4)}
    params = {"at zero": jnp.zeros(2), "still": jnp.ones(2), "w": jnp.full(4, 3.0)}
    tx = gradtx.scale_by_trust_ratio()
    updates, _ = tx.update(g, tx.init(params), params)
    assert updates["at zero"].tolist() == [3.0, -4.0]
    assert updates["still"].tolist() == [0.0, 0.0]
    assert updates["w"].tolist() == [3.0] * 4
