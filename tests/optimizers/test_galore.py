"""GaLore against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def _basis(g, rank):
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    basis = vh.T if g.shape[0] >= g.shape[1] else u
    pivot = basis[np.argmax(np.abs(basis), axis=0), np.arange(basis.shape[1])]
    return (basis * np.sign(pivot))[:, :rank]


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
def test_is_the_rule_of_the_authors(shape, x64):
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=shape), rng.normal(size=(200, *shape))
    p, m, v, b1, b2, basis = start, 0, 0, 0.9, 0.999, np.zeros(0)
    for t, n in enumerate(noise):
        g = p + n
        if t % 30 == 0:
            basis = _basis(g, 3)
        tall = shape[0] >= shape[1]
        low = g @ basis if tall else basis.T @ g
        m, v = b1 * m + (1 - b1) * low, b2 * v + (1 - b2) * low**2
        u = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-8)
        u = 0.25 * (u @ basis.T if tall else basis @ u)
        p = p - 0.05 * (u + 0.1 * p)
    tx = gradtx.galore(0.05, 3, 30, 0.25, weight_decay=0.1)

    def step(carry, n):
        params, state = carry
        updates, state = tx.update({"w": params["w"] + n}, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    params = {"w": jnp.asarray(start)}
    carry = (params, tx.init(params))
    (params, state), _ = jax.jit(lambda c, n: jax.lax.scan(step, c, n))(carry, noise)
    np.testing.assert_allclose(params["w"], p, rtol=0, atol=1e-10)
    low = (shape[0], 3) if shape[0] >= shape[1] else (3, shape[1])
    assert state[0].base_optimizer_state.mu["w"].shape == low


def test_projector_is_orthogonal_and_kept_for_the_gap():
    params = {"w": jnp.ones((6, 4)), "b": jnp.ones(4), "none": None}
    tx = gradtx.scale_by_galore(rank=2, update_proj_gap=2)
    state, seen = tx.init(params), []
    for i in range(3):
        key = jax.random.key(i)
        g = params | {"w": jax.random.normal(key, (6, 4))}
        _, state = tx.update(g, state)
        seen.append(state.projector["w"])
        np.testing.assert_allclose(seen[-1].T @ seen[-1], np.eye(2), atol=1e-6)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.allclose(seen[1], seen[2])
    assert state.projector["b"].shape == (0, 0)


def test_full_rank_identity_base_changes_nothing():
    g = {"w": jax.random.normal(jax.random.key(0), (5, 3), jnp.complex64)}
    tx = gradtx.scale_by_galore(base_optimizer=gradtx.identity())
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u["w"], g["w"], atol=1e-5)


def test_wrong_arguments_are_named():
    with pytest.raises(gradtx.ArgumentError, match="rank must be an integer"):
        gradtx.galore(0.1, rank=0)
    with pytest.raises(gradtx.ArgumentError, match="all axes must be rows or columns"):
        gradtx.galore(
            0.1, weight_dimension_numbers=gradtx.GaLoreDimensionNumbers()
        ).init({"w": jnp.ones((2, 3, 4))})
    with gradtx.core.unchecked():  # with a learning rate of its own it would ascend
        adam = gradtx.galore(0.1, base_optimizer=gradtx.adamw(1.0))
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(gradtx.MissingArgumentError):
        adam.update(params, adam.init(params), params)
