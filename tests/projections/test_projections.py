"""Projections against NumPy, optax and what defines the nearest point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest
from optax import projections as _projections

import gradtx
from gradtx import projections

theirs: Any = _projections
RNG = np.random.default_rng(3)
TREE = {"w": RNG.normal(size=(3, 2)), "b": [RNG.normal(size=4)]}
NORMAL = {"w": RNG.normal(size=(3, 2)), "b": [RNG.normal(size=4)]}
CASES = {
    "projection_non_negative": ((), lambda x: (x >= 0).all()),
    "projection_box": ((-0.5, 0.25), lambda x: ((x >= -0.5) & (x <= 0.25)).all()),
    "projection_hypercube": ((0.5,), lambda x: ((x >= 0) & (x <= 0.5)).all()),
    "projection_linf_ball": ((0.5,), lambda x: abs(x).max() <= 0.5),
    "projection_simplex": ((2.0,), lambda x: (x >= 0).all() and _is(x.sum(), 2)),
    "projection_l1_sphere": ((2.0,), lambda x: _is(abs(x).sum(), 2)),
    "projection_l1_ball": ((2.0,), lambda x: abs(x).sum() <= 2 + 1e-12),
    "projection_l2_sphere": ((2.0,), lambda x: _is(x @ x, 4)),
    "projection_l2_ball": ((2.0,), lambda x: x @ x <= 4 + 1e-12),
    "projection_vector": ((NORMAL,), lambda x: _is(abs(x @ A) ** 2, (x @ x) * (A @ A))),
    "projection_hyperplane": ((NORMAL, 0.5), lambda x: _is(x @ A, 0.5)),
    "projection_halfspace": ((NORMAL, -5.0), lambda x: x @ A <= -5 + 1e-12),
}


def _flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _is(a, b):
    return abs(a - b) < 1e-12 * max(1, abs(b))


A = _flat(NORMAL)


def _made(tree):
    return jax.tree.map(jnp.asarray, tree)


def _arguments(name):
    return [_made(a) if isinstance(a, dict) else a for a in CASES[name][0]]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_lies_in_the_set_and_no_other_point_of_it_is_nearer(name):
    project, inside = getattr(projections, name), CASES[name][1]
    arguments = _arguments(name)
    x = _flat(TREE)
    nearest = _flat(project(_made(TREE), *arguments))
    assert inside(nearest)
    for _ in range(50):
        other = jax.tree.map(lambda v: jnp.asarray(v + RNG.normal(size=v.shape)), TREE)
        other = _flat(project(other, *arguments))
        assert np.linalg.norm(x - nearest) <= np.linalg.norm(x - other) + 1e-12


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("name", CASES)
def test_value_and_derivative_are_those_of_optax(name):
    arguments, tree = _arguments(name), _made(TREE)
    if name == "projection_hypercube":
        tree = tree["w"]  # optax takes no other tree
    if name == "projection_box":  # it takes trees only
        arguments = [gradtx.tree.full_like(tree, a) for a in arguments]
    ours = None
    for library in (projections, theirs):
        out = jax.jvp(
            lambda t, library=library: getattr(library, name)(t, *arguments),
            (tree,),
            (_made(NORMAL)["w"] if name == "projection_hypercube" else _made(NORMAL),),
        )
        if library is projections:
            ours = out
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(out), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_dtypes_are_kept(name):
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), TREE)
    arguments = [
        jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), a)
        if isinstance(a, dict)
        else a
        for a in CASES[name][0]
    ]
    out = jax.jit(lambda t: getattr(projections, name)(t, *arguments))(low)
    assert {x.dtype.name for x in jax.tree.leaves(out)} == {"bfloat16"}


def test_points_of_the_set_stay():
    inside = {"a": jnp.array([0.25, 0.5]), "b": jnp.array([0.25])}
    for name in ("simplex", "l1_ball", "l1_sphere", "l2_ball", "hypercube"):
        out = getattr(projections, f"projection_{name}")(inside)
        np.testing.assert_allclose(_flat(out), _flat(inside), rtol=1e-6)


def test_zeros_and_huge_numbers_stay_finite():
    zeros = jnp.zeros(3)
    assert gradtx.projection_l2_sphere(zeros).tolist() == [0.0, 0.0, 0.0]
    huge = jnp.array([3e20, 4e20])
    np.testing.assert_allclose(gradtx.projection_l2_ball(huge), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(gradtx.projection_l2_sphere(huge), [0.6, 0.8], rtol=1e-6)


@pytest.mark.usefixtures("lenient", "x64")
def test_sparsemax_loss_is_that_of_optax_and_its_gradient_the_definition():
    scores, labels = jnp.asarray(RNG.normal(size=(6, 4))), np.array([0, 1, 2, 3, 0, 1])
    ours = gradtx.losses.multiclass_sparsemax_loss(scores, labels)
    optax: Any = _optax
    expected = optax.losses.multiclass_sparsemax_loss(scores, labels)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)
    gradient = jax.grad(
        lambda s: gradtx.losses.multiclass_sparsemax_loss(s, labels).sum()
    )(scores)
    p = np.stack([projections.projection_simplex(s) for s in scores])
    np.testing.assert_allclose(gradient, p - np.eye(4)[labels], atol=1e-14)
