"""Newton–Schulz against NumPy and optax, whatever the size, shape and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
from optax.contrib import _muon as optax_muon

import gradtx

KELLER = (3.4445, -4.7750, 2.0315)
TABLE = [(4.0, -6.0, 2.5), (3.0, -4.0, 2.0), (1.875, -1.25, 0.375)]


def _reference(x, rows):
    x = x / (np.linalg.norm(x) + 1e-8)
    for a, b, c in rows:
        gram = x @ x.conj().T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def _random(*shape, dtype="float64"):
    rng = np.random.default_rng(3)
    x = rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=shape)
    return x.astype(dtype)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_is_the_polynomial(shape, dtype, x64):
    x = _random(*shape, dtype=dtype)
    for coefficients, rows in ((KELLER, [KELLER] * 5), (TABLE, TABLE)):
        ours = gradtx.orthogonalize_via_newton_schulz(jnp.asarray(x), coefficients)
        # five steps multiply rounding by at most 485, the slope of the map at 0
        np.testing.assert_allclose(ours, _reference(x, rows), atol=1e-12)


@pytest.mark.parametrize("way", ["frobenius", "spectral", "aol", "schatten"])
def test_equals_optax(way, x64):
    x = jnp.asarray(_random(6, 4))
    dims = optax.contrib.MuonDimensionNumbers()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = optax_muon.orthogonalize_via_newton_schulz(
            x, jnp.array(TABLE), 3, way, dimension_numbers=dims
        )
    ours = gradtx.orthogonalize_via_newton_schulz(x, TABLE, 3, way)
    # the eps of 1e-8 has two places in aol and schatten
    bound = 1e-12 if way in ("frobenius", "spectral") else 1e-6
    np.testing.assert_allclose(ours, theirs, atol=bound)


@pytest.mark.parametrize("way", ["frobenius", "spectral", "aol", "schatten"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e20, 1e38])
def test_every_size_is_finite(way, size):
    for x in (jnp.full((3, 4), size), jnp.diag(jnp.array([size, 0.0, 0.0]))):
        u = gradtx.orthogonalize_via_newton_schulz(x, KELLER, 5, way)
        assert np.isfinite(u).all()
        if size == 0:
            assert not u.any()
        if size >= 1:
            assert 0.6 < np.linalg.norm(u, 2) < 1.3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_few_bits_are_computed_in_more(dtype):
    x = jnp.asarray(_random(4, 6)).astype(dtype)
    u = gradtx.orthogonalize_via_newton_schulz(x, KELLER)
    wide = gradtx.orthogonalize_via_newton_schulz(x.astype(jnp.float32), KELLER)
    assert u.dtype == x.dtype
    np.testing.assert_array_equal(u, wide.astype(dtype))


def test_axes_fold_to_matrices_and_back():
    x = jnp.asarray(_random(2, 3, 4, 5, dtype="float32"))
    dims = gradtx.MuonDimensionNumbers(2, (0, -1))
    folded = dims.fold(x)
    assert folded.shape == (3, 4, 10)
    np.testing.assert_array_equal(dims.unfold(folded, x.shape), x)
    whole = gradtx.orthogonalize_via_newton_schulz(x, KELLER, dimension_numbers=dims)
    one = gradtx.orthogonalize_via_newton_schulz(folded[1], KELLER)
    np.testing.assert_allclose(dims.fold(whole)[1], one, atol=1e-5)


def test_wrong_arguments_are_named():
    newton = gradtx.orthogonalize_via_newton_schulz
    with pytest.raises(gradtx.ArgumentError, match="preconditioning must be one of"):
        newton(jnp.ones((2, 2)), KELLER, preconditioning="none")  # pyright: ignore
    with pytest.raises(gradtx.ShapeError, match="expected a matrix"):
        newton(jnp.ones(2), KELLER)
    with pytest.raises(gradtx.ShapeError, match="ns_coeffs must have shape"):
        newton(jnp.ones((2, 2)), (1.0, 2.0))
    with pytest.raises(gradtx.ArgumentError, match="share an axis"):
        gradtx.MuonDimensionNumbers(0, -2).fold(jnp.ones((2, 2)))
