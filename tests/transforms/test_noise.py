"""Gaussian noise from keys that the caller chose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def _noise(tx, params, steps=1):
    state, updates = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    zeros = updates
    for _ in range(steps):
        updates, state = tx.update(zeros, state)
    return updates


def test_variance_follows_the_paper():
    params = {"w": jnp.zeros(20_000)}
    for steps in (1, 4):
        drawn = _noise(gradtx.add_noise(eta=4.0, gamma=1.0, key=0), params, steps)["w"]
        # 4/t; the spread of a sample variance is √(2/n) = 1 %
        np.testing.assert_allclose(np.var(drawn), 4 / steps, rtol=0.05)
        assert abs(float(drawn.mean())) < 0.1


def test_a_leafs_noise_depends_on_its_path_alone():
    tx = gradtx.add_noise(0.1, 0.55, key=1)
    small = _noise(tx, {"b": jnp.zeros(4)})
    large = _noise(tx, {"a": jnp.zeros(4), "b": jnp.zeros(4)})
    np.testing.assert_array_equal(small["b"], large["b"])
    assert not np.array_equal(large["a"], large["b"])


def test_noise_changes_from_step_to_step_and_repeats_with_its_key():
    tx, params = gradtx.add_noise(0.1, 0.0, key=1), {"w": jnp.zeros(4)}
    first, second = _noise(tx, params), _noise(tx, params, 2)
    assert not np.array_equal(first["w"], second["w"])
    np.testing.assert_array_equal(first["w"], _noise(tx, params)["w"])
    seeded = gradtx.add_noise(0.1, 0.0, seed=1)
    np.testing.assert_array_equal(first["w"], _noise(seeded, params)["w"])


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_state_owns_its_key(make):
    key = make(3)
    tx = gradtx.add_noise(0.1, 0.5, key=key)
    g = jnp.zeros(3)
    jax.jit(tx.update, donate_argnums=1)(g, tx.init(g))
    jax.random.normal(key, ())  # neither deleted nor moved
    tx.init(g)


def test_low_precision_noise_keeps_the_dtype():
    drawn = _noise(gradtx.add_noise(0.1, 0.5, key=0), {"w": jnp.zeros(3, jnp.bfloat16)})
    assert drawn["w"].dtype == jnp.bfloat16


def test_key_must_be_chosen():
    with pytest.raises(gradtx.ArgumentError, match="only one of key= and seed="):
        gradtx.add_noise(0.1, 0.5, key=0, seed=0)
    with pytest.raises(gradtx.ArgumentError, match="add_noise: give a key"):
        gradtx.add_noise(0.1, 0.5).init({"w": jnp.zeros(2)})
    with pytest.raises(gradtx.ArgumentError, match="eta must be 0 or more"):
        gradtx.add_noise(-1.0, 0.5, key=0)
