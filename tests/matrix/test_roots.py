"""Eigenvalues, inverse roots, least squares and diagonals against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import gradtx


def _positive(n, seed, spread=2.0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return q * np.exp(rng.uniform(-spread, spread, n)) @ q.T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("p", range(1, 17))
def test_inverse_roots_are_those_of_the_eigenvalues(p):
    # optax is off by 2e-2 at p = 3 and by 1e-1 at p = 16
    a = _positive(6, p)
    root, error = gradtx.matrix_inverse_pth_root(
        jnp.asarray(a), p, ridge_epsilon=0.0, error_tolerance=1e-12
    )
    values, vectors = np.linalg.eigh(a)
    truth = vectors * values ** (-1 / p) @ vectors.T
    np.testing.assert_allclose(root, truth, rtol=1e-9, atol=1e-9)
    assert error <= 1e-10


def test_a_traced_order_and_a_zero_matrix():
    a = jnp.asarray(_positive(4, 0), jnp.float32)
    known, _ = gradtx.matrix_inverse_pth_root(a, 3)
    traced, _ = jax.jit(gradtx.matrix_inverse_pth_root)(a, 3)
    np.testing.assert_allclose(known, traced, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(gradtx.matrix_inverse_pth_root(jnp.zeros((3, 3)), 2)[0]).all()
    with pytest.raises(gradtx.ArgumentError, match="p must be"):
        gradtx.matrix_inverse_pth_root(a, 0)
    with pytest.raises(gradtx.ShapeError, match="must be square"):
        gradtx.matrix_inverse_pth_root(a[:2], 2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("complex_", [False, True])
def test_power_iteration_finds_the_largest_eigenvalue(complex_):
    rng = np.random.default_rng(1)
    shape = (5, 5)
    q = rng.normal(size=shape) + 1j * complex_ * rng.normal(size=shape)
    q, _ = np.linalg.qr(q)
    a = q * np.array([1.0, -4.0, 2.0, 0.5, 3.0]) @ q.conj().T
    a = a if complex_ else np.real(a)
    value, vector = gradtx.power_iteration(jnp.asarray(a), num_iters=500)
    np.testing.assert_allclose(value, -4.0, rtol=1e-9)
    np.testing.assert_allclose(a @ vector, -4.0 * np.asarray(vector), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, rtol=1e-12)


def test_power_iteration_of_functions_and_zeros():
    twice = lambda tree: jax.tree.map(lambda x: 2 * x, tree)
    start = {"a": jnp.ones(2), "b": jnp.ones(())}
    value, _ = gradtx.power_iteration(twice, v0=start)
    assert float(value) == pytest.approx(2.0)
    value, vector = gradtx.power_iteration(jnp.zeros((3, 3)))
    assert float(value) == 0.0  # optax: NaN
    assert jnp.isfinite(vector).all()
    with pytest.raises(gradtx.ArgumentError, match="v0 is missing"):
        gradtx.power_iteration(twice)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(5))
def test_least_squares_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(8, 4)), rng.normal(size=8)
    truth, _ = scipy.optimize.nnls(a, b)
    found = gradtx.nnls(jnp.asarray(a), jnp.asarray(b), iters=5000)
    np.testing.assert_allclose(found, truth, atol=1e-8)
    both = gradtx.nnls(jnp.asarray(a), jnp.stack([b, -b], 1), iters=5000)
    np.testing.assert_allclose(both[:, 0], truth, atol=1e-8)
    with pytest.raises(gradtx.ShapeError, match="nnls: expected A"):
        gradtx.nnls(jnp.asarray(a), jnp.ones(3), iters=1)


def test_diagonals_are_replaced():
    a = jnp.arange(18.0).reshape(2, 3, 3)
    found = gradtx.set_diags(a, jnp.full((2, 3), -1.0))
    assert (jnp.diagonal(found, axis1=1, axis2=2) == -1).all()
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_array_equal(found[:, off], a[:, off])
    with pytest.raises(gradtx.ShapeError, match=r"set_diags: Shape mismatch"):
        gradtx.set_diags(a, jnp.ones((2, 2)))
    tiled = gradtx.tile_second_to_last_dim(a)
    assert tiled.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(tiled[..., 1], a)
