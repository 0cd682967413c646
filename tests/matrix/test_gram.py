"""Newton–Schulz in float32 against singular values in float64, in each of its forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

import gradtx
from gradtx.matrix._chunks import CHUNK, chunks_of, in_chunks
from gradtx.matrix._gram import gram_of, gram_pays, gram_steps, restarts

KELLER = (3.4445, -4.7750, 2.0315)
# Keller Jordan's muon.py; optax's "dion"; arXiv:2505.16932 in five and, from NeMo, in
# eight steps; arXiv:2506.10935; DeepSeek-V4; arXiv:2606.00371
PRESETS = {
    "muon": [KELLER] * 5,
    "dion": [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
    "polar express, 5": [
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ],
    "polar express, 8": [
        (8.2051, -22.9019, 16.4607),
        (4.0664, -2.8612, 0.5184),
        (3.9096, -2.8234, 0.5250),
        (3.2856, -2.4153, 0.4853),
        (2.2779, -1.6198, 0.3985),
        (1.8726, -1.2307, 0.3585),
        (1.8564, -1.2132, 0.3568),
        (1.875, -1.25, 0.375),
    ],
    "chebyshev, 5": [
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ],
    "deepseek, 8 + 2": [KELLER] * 8 + [(2.0, -1.5, 0.5)] * 2,
    "muon, 10": [KELLER] * 10,
    "cubic, 5": [
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    ],
}
SIDE = 64
SPECTRA = {
    "near 1": np.linspace(0.5, 1, SIDE),
    "power": 1 / np.arange(1, SIDE + 1),
    "down to 1e-4": np.logspace(0, -4, SIDE),
    "down to 1e-7": np.logspace(0, -7, SIDE),
    "rank 8": np.r_[np.ones(8), np.zeros(SIDE - 8)],
    "one above 1e-3": np.r_[1, np.full(SIDE - 1, 1e-3)],
    "one above 1e-4": np.r_[1, np.full(SIDE - 1, 1e-4)],
}
SHAPES = {"wide": (SIDE, 192), "tall": (256, SIDE), "square": (SIDE, SIDE)}
EPS = float(jnp.finfo(jnp.float32).eps)
BATCH = gradtx.MuonDimensionNumbers(1, 2)


def _matrix(rng, values, shape):
    left, right = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in shape)
    return (left * values) @ right.T


def _polynomial(x, rows):
    """Return `x` with `p(s)` for its singular values, and the steepest slope of `p`."""
    u, s, v = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    slope = np.ones_like(s)
    for a, b, c in rows:
        slope = slope * (a + 3 * b * s**2 + 5 * c * s**4)
        s = a * s + b * s**3 + c * s**5
    at_zero = np.prod([a for a, _, _ in rows])
    return (u * s) @ v, max(np.abs(slope).max(), at_zero)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_the_polynomial_of_the_singular_values(preset, shape):
    rng, rows = np.random.default_rng(1), PRESETS[preset]
    matrices = [_matrix(rng, s, SHAPES[shape]) for s in SPECTRA.values()]
    matrices = [(x / np.linalg.norm(x)).astype(np.float32) for x in matrices]
    zeroed = matrices[0].copy()
    zeroed[:40] = 0
    matrices += [zeroed / np.linalg.norm(zeroed), np.zeros_like(zeroed)]
    ours = gradtx.orthogonalize_via_newton_schulz(
        jnp.stack(matrices), rows, dimension_numbers=BATCH
    )
    for name, x, u in zip([*SPECTRA, "zero rows", "zero"], matrices, ours, strict=True):
        exact, slope = _polynomial(x, rows)
        # two roundings of float32, carried through the map. The plain form comes to 0.8,
        # this one to 1.2; without restarts 5 steps to 100, 10 to infinity
        bound = 2 * EPS * slope
        assert np.linalg.norm(np.asarray(u, np.float64) - exact, 2) <= bound, name


@pytest.mark.parametrize("way", ["frobenius", "spectral", "aol", "schatten"])
@pytest.mark.parametrize("shape", [(3, 8), (2, 9, 5)])
def test_both_forms_are_one(way, shape, x64):
    rng = np.random.default_rng(2)
    x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    dims = gradtx.MuonDimensionNumbers(-2, -1)
    orthogonalize = gradtx.orthogonalize_via_newton_schulz
    for steps in (1, 2, 5):
        by_gram = orthogonalize(jnp.asarray(x), KELLER, steps, way, 1e-8, dims)
        # as many steps as a tracer says are taken on the matrix itself
        plain = jax.jit(lambda x, n: orthogonalize(x, KELLER, n, way, 1e-8, dims))
        plain = plain(jnp.asarray(x), steps)
        # rounding of 1e-16, times the slope of 485
        np.testing.assert_allclose(by_gram, plain, atol=1e-12)


def test_a_transposed_matrix_gives_the_transposed_result():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(16, 40)), jnp.float32)
    for way in ("frobenius", "aol", "schatten"):
        u = gradtx.orthogonalize_via_newton_schulz(x, KELLER, 5, way)
        v = gradtx.orthogonalize_via_newton_schulz(x.T, KELLER, 5, way)
        # roundings of eps, in different order, times the slope of 485
        np.testing.assert_allclose(u, v.T, atol=485 * EPS)


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("shape", [(64, 64), (64, 88), (64, 104), (192, 64), (64, 256)])
def test_the_gram_form_is_taken_where_it_multiplies_less(shape, steps):
    def flops(bounds):
        def form(x):
            for start, stop in itertools.pairwise(bounds):
                x = gram_steps(x, gram_of(x), [jnp.array(KELLER)] * (stop - start))
            return x

        compiled = jax.jit(form).lower(jnp.ones((1, *shape))).compile()
        return compiled.cost_analysis()["flops"]  # pyright: ignore

    ratio = flops(restarts(steps)) / flops(range(steps + 1))
    assert gram_pays(*sorted(shape)) == (ratio < 1)
    if shape == (64, 256):
        assert ratio < 0.8  # 35/45, 13/18


def test_other_devices_take_plain_steps_in_one_batch():
    x = jax.ShapeDtypeStruct((12, 768, 3072), jnp.float32)

    def program(platform):
        traced = jax.jit(
            lambda x: gradtx.orthogonalize_via_newton_schulz(
                x, KELLER, dimension_numbers=BATCH
            )
        ).trace(x)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    # three products a step, in all five or, with older JAX, in the first one and in
    # a function that stands for the others
    for platform in ("cuda", "tpu"):
        assert program(platform).count("stablehlo.dot_general") in (5 * 3, 3 + 3)
        assert "stablehlo.while" not in program(platform)
    text = program("cpu")
    # one step, two and two: 2 + 6 + 6, and the Gram matrix of each
    assert text.count("stablehlo.dot_general") == 3 + 7 + 7
    assert text.count("stablehlo.while") == 1


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_chunks_are_the_whole(batch):
    side = 700  # two matrices fill a chunk
    x = jnp.arange(batch * side * side, dtype=jnp.float32).reshape(batch, side, side)
    seen = []

    def function(part):
        seen.append(part.shape[0])
        return part + 1

    assert chunks_of(x) == -(-batch // 2)
    np.testing.assert_array_equal(in_chunks(function, x), x + 1)
    assert set(seen) == {min(batch, 2)}
    assert 2 * side * side <= CHUNK


def test_large_matrices_in_a_batch_are_as_they_are_alone():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(3, 512, 1024)), jnp.float32)
    assert chunks_of(x) > 1
    whole = gradtx.orthogonalize_via_newton_schulz(x, KELLER, dimension_numbers=BATCH)
    for u, one in zip(whole, x, strict=True):
        alone = gradtx.orthogonalize_via_newton_schulz(one, KELLER)
        # another order of sums: roundings of eps, times the slope of 485
        np.testing.assert_allclose(u, alone, atol=485 * EPS)


def test_a_loop_does_not_divide_what_devices_share():
    mesh = jax.make_mesh((8,), ("layers",), (jax.sharding.AxisType.Explicit,))
    x = jnp.asarray(np.random.default_rng(5).normal(size=(8, 256, 640)), jnp.float32)
    assert chunks_of(x) > 1

    def orthogonal(x):
        return gradtx.orthogonalize_via_newton_schulz(
            x, KELLER, dimension_numbers=BATCH
        )

    with jax.set_mesh(mesh):
        shared = jax.device_put(x, NamedSharding(mesh, jax.P("layers")))
        u = jax.jit(orthogonal)(shared)
        assert u.sharding.spec[0] == "layers"
    np.testing.assert_allclose(u, orthogonal(x), atol=485 * EPS)


def test_gradients_pass():
    x = jnp.asarray(np.random.default_rng(6).normal(size=(4, 9)), jnp.float32)
    value = lambda x: jnp.sum(
        jnp.sin(gradtx.orthogonalize_via_newton_schulz(x, KELLER))
    )
    slope = jnp.sum(jax.grad(value)(x) * x[::-1])
    step = 1e-2
    change = value(x + step * x[::-1]) - value(x - step * x[::-1])
    # the error of a central difference, step², and of float32, 485·eps/step
    np.testing.assert_allclose(change / (2 * step), slope, rtol=2e-2, atol=1e-2)
