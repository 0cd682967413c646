"""Sophia: against optax with a given diagonal, and its estimator against a Hessian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest
from optax import contrib

import gradtx
from tests.optimizers import _paths

optax: Any = _optax

LEAVES = ("w", "s")


def _diagonal(library):
    """Return a transformation that gives a curvature, of both signs, for gradients."""
    return library.GradientTransformation(
        lambda params: library.EmptyState(),
        lambda g, state, params=None: (jax.tree.map(lambda x: x * x - 0.1, g), state),
    )


def _walk(tx, apply_updates):
    start = {k: jnp.asarray(_paths.START[k]) for k in LEAVES}
    noise = {k: jnp.asarray(_paths.NOISE[k]) for k in LEAVES}

    def step(carry, drawn):
        params, state = carry
        updates, state = tx.update(_paths.gradients(params, drawn), state, params)
        params = apply_updates(params, updates)
        return (params, state), params

    carry = (start, tx.init(start))
    taken = jax.jit(lambda: jax.lax.scan(step, carry, noise)[1])()
    return {
        k: np.concatenate([_paths.START[k][None], np.asarray(x)])
        for k, x in taken.items()
    }


def _truth(b1, b2, eps, gamma, decay, every):
    """Liu et al. 2023, Algorithm 3, with optax's correction and order."""
    m, h = (dict.fromkeys(LEAVES, 0.0) for _ in range(2))
    p = {k: _paths.START[k] for k in LEAVES}
    path = [p]
    for t in range(1, _paths.STEPS + 1):
        g = _paths.gradients(p, {k: _paths.NOISE[k][t - 1] for k in LEAVES})
        new = {}
        for k in LEAVES:
            m[k] = b1 * m[k] + (1 - b1) * g[k]
            u = m[k] / (1 - b1**t) / np.maximum(gamma * h[k], eps)
            u = np.clip(u, -1, 1)
            new[k] = p[k] - _paths.falling(t - 1) * (u + decay * p[k])
            if (t - 1) % every == 0:
                h[k] = b2 * h[k] + (1 - b2) * (g[k] ** 2 - 0.1)
        p = new
        path.append(p)
    return {k: np.stack([at[k] for at in path]) for k in LEAVES}


@pytest.mark.usefixtures("lenient", "x64")
def test_200_steps_are_the_reference_and_optax():
    arguments: dict[str, Any] = {"b1": 0.9, "gamma": 2.0, "update_interval": 7}
    ours = _walk(
        gradtx.sophia(
            _paths.falling, hessian_diagonal_fn=_diagonal(gradtx), **arguments
        ),
        gradtx.apply_updates,
    )
    theirs = _walk(
        contrib.sophia(
            _paths.falling, hessian_diagonal_fn=_diagonal(optax), **arguments
        ),
        optax.apply_updates,
    )
    truth = _truth(0.9, 0.99, 1e-8, 2.0, 1e-4, 7)
    # the curvature sums numbers of both signs and is divided by where it is near 0
    assert _paths.error(ours, truth) <= 1e-10
    assert _paths.error(ours, theirs) <= 1e-10


def test_the_estimate_is_exact_for_a_diagonal_hessian():
    tx = gradtx.hutchinson_estimator_diag_hessian(3)
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5), "n": jnp.arange(2)}
    grads = {"w": jnp.ones(2), "b": jnp.ones(()), "n": np.zeros(2, jax.dtypes.float0)}
    curved = lambda p: jnp.sum(p["w"] ** 3) + 5 * p["b"] ** 2
    found, state = tx.update(grads, tx.init(params), params, obj_fn=curved)
    np.testing.assert_allclose(found["w"], [6.0, -12.0], rtol=1e-6)
    np.testing.assert_allclose(found["b"], 10.0, rtol=1e-6)
    assert found["n"] is grads["n"]
    assert (state.key != tx.init(params).key).any()


def test_the_estimate_is_right_on_average():
    matrix = jnp.array([[2.0, 0.5], [0.5, 3.0]])
    curved = lambda p: p @ matrix @ p / 2
    tx, p = gradtx.hutchinson_estimator_diag_hessian(0), jnp.zeros(2)

    def step(state, _):
        found, state = tx.update(p, state, p, obj_fn=curved)
        return state, found

    found = jax.lax.scan(step, tx.init(p), length=4000)[1]
    # four standard deviations of a mean of ±0.5
    np.testing.assert_allclose(found.mean(0), [2.0, 3.0], atol=4 * 0.5 / 4000**0.5)


def test_the_objective_is_asked_for():
    tx, p = gradtx.sophia(0.1), {"w": jnp.ones(2)}
    with pytest.raises(gradtx.MissingArgumentError, match="obj_fn="):
        tx.update(p, tx.init(p), p)


def test_the_share_within_the_bound_is_printed(capfd):
    tx = gradtx.sophia(0.1, verbose=True, print_win_rate_every_n_steps=1, eps=1.0)
    p = {"w": jnp.array([0.5, 2.0])}
    tx.update(p, tx.init(p), p, obj_fn=lambda p: jnp.sum(p["w"] ** 2))
    jax.effects_barrier()
    assert "share within the bound 0.5" in capfd.readouterr().out
