"""Safe norms, per-example clipping and scaled gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest

import gradtx

optax: Any = _optax
RNG = np.random.default_rng(1)
GRADS = {"w": RNG.normal(size=(6, 3, 2)), "b": 0.1 * RNG.normal(size=(6, 4))}


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_safe_norm_is_that_of_optax(axis, keepdims, floor):
    x = jnp.asarray(GRADS["w"][0])
    ours = gradtx.safe_norm(x, floor, axis=axis, keepdims=keepdims)
    theirs = optax.safe_norm(x, floor, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_floors_hold_and_derivatives_are_finite():
    zero = jnp.zeros(3)
    assert float(gradtx.safe_norm(zero, 0.25)) == 0.25
    assert float(gradtx.safe_root_mean_squares(zero, 0.5)) == 0.5
    np.testing.assert_allclose(
        gradtx.safe_root_mean_squares(jnp.array([3.0, 4.0]), 0.5), 12.5**0.5, rtol=1e-6
    )
    for function in (gradtx.safe_norm, gradtx.safe_root_mean_squares):
        grad = jax.grad(lambda x, function=function: function(x, 0.0))(zero)
        assert grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.usefixtures("x64")
def test_each_example_is_clipped_by_its_own_norm():
    norms = np.sqrt((GRADS["w"] ** 2).sum((1, 2)) + (GRADS["b"] ** 2).sum(1))
    limit = float(np.median(norms))
    share = np.minimum(1, limit / norms)
    total, count = gradtx.per_example_global_norm_clip(
        jax.tree.map(jnp.asarray, GRADS), limit
    )
    assert int(count) == (norms > limit).sum() == 3
    np.testing.assert_allclose(
        total["w"], (GRADS["w"] * share[:, None, None]).sum(0), rtol=1e-12
    )
    np.testing.assert_allclose(
        total["b"], (GRADS["b"] * share[:, None]).sum(0), rtol=1e-12
    )


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("uniform", [True, False])
def test_layers_are_clipped_as_in_optax(uniform):
    grads = jax.tree.map(jnp.asarray, GRADS)
    ours = gradtx.per_example_layer_norm_clip(grads, 1.5, uniform)
    theirs = optax.per_example_layer_norm_clip(grads, 1.5, uniform)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_float16_gradients_are_clipped_and_not_lost():
    huge = {"w": jnp.full((2, 4), 300.0, jnp.float16)}
    total, count = gradtx.per_example_global_norm_clip(huge, 1.0)
    np.testing.assert_allclose(total["w"], np.ones(4), rtol=1e-6)
    assert int(count) == 2


def test_leaves_without_examples_are_named():
    with pytest.raises(gradtx.ShapeError, match="examples on axis 0"):
        gradtx.per_example_global_norm_clip(
            {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}, 1.0
        )
    with pytest.raises(gradtx.ShapeError, match="examples on axis 0"):
        gradtx.per_example_layer_norm_clip({"a": jnp.ones(())}, 1.0)


@pytest.mark.parametrize("scale", [0.0, 1.0, -2.0])
def test_gradients_are_scaled_and_values_are_not(scale):
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}

    def f(x):
        y = gradtx.scale_gradient(x, scale)
        return jnp.sum(y["a"] ** 2) * y["b"]

    plain, grads = jax.value_and_grad(f)(x)
    assert float(plain) == 15.0
    np.testing.assert_allclose(grads["a"], [6 * scale, 12 * scale])
    np.testing.assert_allclose(grads["b"], 5 * scale)
