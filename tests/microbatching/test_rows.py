"""Rows and their gradients, a microbatch at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import AccumulationType

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)


@pytest.mark.parametrize("size", [None, 2, 8])
def test_mapping_is_vmap(size):
    fun = lambda x, w, *, y: {"dot": x @ w, "y": y * x}
    mapped = gradtx.micro_vmap(fun, (1, None), microbatch_size=size)
    made = mapped(X.T, jnp.ones(3), y=X)
    expected = jax.vmap(lambda x, y: fun(x, jnp.ones(3), y=y))(X, X)
    for name in expected:
        np.testing.assert_allclose(made[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("size", [None, 2])
def test_sums_and_means_over_rows(size):
    kinds = (AccumulationType.SUM, AccumulationType.MEAN, AccumulationType.RUNNING_MEAN)
    fun = lambda x: (x, x, x)
    made = gradtx.micro_vmap(fun, microbatch_size=size, accumulator=kinds)(X)
    for got, expected in zip(made, (X.sum(0), X.mean(0), X.mean(0)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)  # float32 sums of 8


def test_one_axis_holds_for_all_arguments():
    mapped = gradtx.micro_vmap(jnp.dot, microbatch_size=4)
    np.testing.assert_allclose(mapped(X, X), (X * X).sum(1), rtol=1e-6)


def test_another_vmap_may_map():
    seen = []

    def noted(fun, in_axes, out_axes):
        seen.append((in_axes, out_axes))
        return jax.vmap(fun, in_axes, out_axes, axis_name="rows")

    fun = lambda x: x - jax.lax.pmean(x, "rows")
    made = gradtx.micro_vmap(fun, microbatch_size=8, vmap_fn=noted)(X)
    np.testing.assert_allclose(made, X - X.mean(0, keepdims=True), rtol=1e-5, atol=1e-7)
    assert seen[0] == ((0,), 0)


def test_another_output_axis_is_refused():
    with pytest.raises(gradtx.ArgumentError, match="micro_vmap: out_axes must be 0"):
        gradtx.micro_vmap(jnp.sum, out_axes=1)


def _loss(w, x, y, scale=1.0):
    return scale * 0.5 * jnp.mean((x @ w["w"] - y) ** 2)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("keep", [True, False])
def test_moments_of_gradients_equal_a_loop_and_optax(size, keep, lenient):
    w, y = {"w": jnp.ones(3)}, X[:, 0] * 2

    def run(lib):
        return lib.microbatching.micro_grad(
            lambda w, x, y: (_loss(w, x, y), jnp.sum(x)),
            has_aux=True,
            batch_argnums=(1, 2),
            keep_batch_dim=keep,
            microbatch_size=size,
            accumulator=lib.microbatching.AccumulationType.MEAN,
            transform_fn=lambda g: (g, jax.tree.map(jnp.square, g)),
            metrics_fn=lambda g: jnp.linalg.norm(g["w"]),
        )(w, X, y)

    (mean, square), aux = run(gradtx)
    each = [jax.grad(_loss)(w, X[i], y[i])["w"] for i in range(8)]
    rtol = 2e-6  # float32 sums of 8 numbers
    np.testing.assert_allclose(mean["w"], np.mean(each, axis=0), rtol=rtol)
    np.testing.assert_allclose(square["w"], np.mean(np.square(each), axis=0), rtol=rtol)
    norms = np.linalg.norm(each, axis=1)
    np.testing.assert_allclose(aux.metrics, norms, rtol=rtol)
    np.testing.assert_allclose(aux.aux, X.sum(1), rtol=rtol, atol=1e-6)
    for a, b in zip(
        *(jax.tree.leaves(it) for it in (((mean, square), aux), run(optax))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


def test_arguments_without_examples_may_follow():
    grad = gradtx.micro_grad(_loss, batch_argnums=(1, 2))
    once, _ = grad({"w": jnp.ones(3)}, X, X[:, 0])
    twice, _ = grad({"w": jnp.ones(3)}, X, X[:, 0], 2.0)
    np.testing.assert_allclose(twice["w"], 2 * once["w"], rtol=1e-6)


def test_examples_beyond_the_real_ones_count_nothing():
    grad = gradtx.micro_grad(
        lambda w, x: w * jnp.sum(x), microbatch_size=2, num_real_microbatches=3
    )
    total, aux = grad(1.0, jnp.ones(8))
    assert total.item() == 6.0
    assert aux.values.tolist().count(0.0) == 2
    assert aux.metrics is None
