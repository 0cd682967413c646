"""L-BFGS follows the two-loop recursion, and stays positive where it would not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


def _loss(p):
    x, y = p["x"], p["y"]
    return jnp.sum((1 - x) ** 2 + 2 * (y - x**2) ** 2)


def _path(tx, steps):
    def step(carry, _):
        p, state = carry
        u, state = tx.update(jax.grad(_loss)(p), state, p)
        p = jax.tree.map(lambda a, b: a - 0.05 * b, p, u)
        return (p, state), p

    p = {"x": jnp.array([0.8, 0.9]), "y": jnp.array([0.5, 0.7])}
    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, steps)[1])(p)


@pytest.mark.parametrize("scaled", [True, False])
def test_path_is_optax_s_where_the_curvature_is_positive(x64, scaled):
    ours = _path(gradtx.scale_by_lbfgs(3, scaled), 200)
    theirs = _path(optax.scale_by_lbfgs(3, scaled), 200)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # a few hundred roundings of float64
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_direction_is_the_two_loop_recursion(x64):
    rng, tx = np.random.default_rng(0), gradtx.scale_by_lbfgs(3)
    a = np.diag([1.0, 2.0, 5.0, 9.0])
    points = rng.normal(size=(6, 4))
    state = tx.init(jnp.zeros(4))
    for p in points:
        u, state = tx.update(jnp.asarray(a @ p), state, jnp.asarray(p))
    pairs = [
        (q - p, a @ (q - p)) for p, q in zip(points[2:-1], points[3:], strict=True)
    ]
    q, alphas = a @ points[-1], []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    q = q * (s @ y) / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - y @ q / (s @ y)) * s
    np.testing.assert_allclose(u, q, rtol=1e-12)  # roundings of float64


def test_negative_curvature_leaves_the_estimate_positive():
    tx = gradtx.scale_by_lbfgs()
    _, state = tx.update(jnp.array([1.0]), tx.init(jnp.array([0.0])), jnp.array([0.0]))
    u, state = tx.update(jnp.array([0.5]), state, jnp.array([1.0]))
    assert u[0] > 0
    assert not state.weights_memory.any()


def test_zero_gradient_gives_a_zero_update():
    tx, p = gradtx.scale_by_lbfgs(), jnp.ones(2)
    state = tx.init(p)
    for _ in range(3):
        u, state = tx.update(jnp.zeros(2), state, p)
        np.testing.assert_array_equal(u, 0)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="memory_size"):
        gradtx.scale_by_lbfgs(0)
    tx = gradtx.scale_by_lbfgs()
    with pytest.raises(gradtx.MissingArgumentError, match="parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
