"""L-BFGS follows the two-loop recursion, and stays positive where it would not."""

from __future__ import annotations

import itertools
from typing import Any

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


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("scaled", [True, False])
def test_path_is_optax_s_where_the_curvature_is_positive(scaled):
    ours = _path(gradtx.scale_by_lbfgs(3, scaled), 200)
    theirs = _path(optax.scale_by_lbfgs(3, scaled), 200)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # a few hundred roundings of float64
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_direction_is_the_two_loop_recursion():
    rng, tx = np.random.default_rng(0), gradtx.scale_by_lbfgs(3)
    a = np.diag([1.0, 2.0, 5.0, 9.0])
    points = rng.normal(size=(6, 4))
    state = tx.init(jnp.zeros(4))
    u = jnp.zeros(4)
    for p in points:
        u, state = tx.update(jnp.asarray(a @ p), state, jnp.asarray(p))
    pairs = [(q - p, a @ (q - p)) for p, q in itertools.pairwise(points[2:])]
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


def _rosenbrock(p):
    x = p["x"]
    return jnp.sum((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2)


def _descend(library, tx, steps):
    params = {"x": jnp.array([-1.2, 1.0, 0.5, -0.3])}
    evaluate = library.value_and_grad_from_state(_rosenbrock)

    def one(params, state):
        value, grad = evaluate(params, state=state)
        updates, state = tx.update(
            grad, state, params, value=value, grad=grad, value_fn=_rosenbrock
        )
        return library.apply_updates(params, updates), state

    step: Any = jax.jit(one)
    state, path = tx.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        path.append(np.asarray(params["x"]))
    return np.stack(path), step._cache_size()


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize(
    ("make", "steps"),
    [
        # until the value is 1e-20: then rounding alone decides where a search ends
        (lambda o: o.lbfgs(), 30),
        (lambda o: o.lbfgs(0.5, memory_size=3), 100),
        (
            lambda o: o.lbfgs(
                linesearch=o.scale_by_zoom_linesearch(15, max_learning_rate=1.0)
            ),
            25,
        ),
        (
            lambda o: o.chain(
                o.sgd(1.0), o.scale_by_backtracking_linesearch(30, store_grad=True)
            ),
            200,
        ),
        (lambda o: o.chain(o.sgd(1.0), o.scale_by_zoom_linesearch(30)), 30),
    ],
)
def test_searches_end_where_those_of_optax_do(make, steps):
    ours, compiled = _descend(gradtx, make(gradtx), steps)
    theirs, _ = _descend(optax, make(optax), steps)
    # differences grow along the valley, by 1e4 at most in so many steps
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert compiled == 1  # optax compiles twice


@pytest.mark.usefixtures("x64")
def test_the_minimum_of_the_rosenbrock_function_is_found():
    path, _ = _descend(gradtx, gradtx.lbfgs(), 60)
    np.testing.assert_allclose(path[-1], 1.0, rtol=1e-8)


def test_matrices_of_memory_are_not_parameters():
    # a spec per parameter belongs to two fields of four
    params = {"w": jnp.ones((3, 2))}
    state = gradtx.scale_by_lbfgs(4).init(params)
    seen = gradtx.tree.map_params(gradtx.scale_by_lbfgs(4), lambda x: x.shape, state)
    assert seen.params["w"] == seen.updates["w"] == (3, 2)
    assert seen.diff_params_memory["w"].shape == (4, 3, 2)
    assert seen.weights_memory.shape == (4,)


def test_a_pair_whose_products_overflow_is_left_out():
    tx = gradtx.scale_by_lbfgs(2)
    start = jnp.zeros(2)
    _, state = tx.update(jnp.array([1.0, 0.0]), tx.init(start), start)
    # s·y is 2e35, y·y more than any float32 holds
    far = jnp.array([1.0, 0.0])
    _, state = tx.update(jnp.array([2e35, 0.0]), state, far)
    assert float(state.weights_memory[0]) == 0
    u, _ = tx.update(jnp.array([3.0, 4.0]), state, far)
    assert bool(jnp.isfinite(u).all())
