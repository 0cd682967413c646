"""Sums of several trees' leaves, in one pass, without overflow or lost elements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core import leaf_nonfinite, leaf_sums

sums = jax.jit(leaf_sums)
nonfinite = jax.jit(leaf_nonfinite)

# a sum in float64 and a root, rounded to float32
ROUNDED = 2 * 2.0**-24
# without a wider type: 60 squares, each and their sum rounded, and a root
SUMMED = {"float64": 2.0**-24, "complex128": 2.0**-24, "float32": ROUNDED}
SUMMED["complex64"] = ROUNDED


def _truth(blocks, pairs=()):
    wide = [np.asarray(x).astype(np.clongdouble) for x in blocks]
    axes = lambda x: tuple(range(1, x.ndim))
    with np.errstate(invalid="ignore"):
        rows = [np.sqrt(np.sum(x.real**2 + x.imag**2, axes(x))) for x in wide]
        for a, b in pairs:
            a, b = (np.asarray(x).astype(np.clongdouble) for x in (a, b))
            rows.append(np.sum(a.real * b.real + a.imag * b.imag, axes(a)))
    return np.array(rows, np.float64)


def _draw(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype[0] == "c" else 0)
    return jnp.asarray(x.astype(dtype))


@pytest.mark.parametrize("shape", [(3,), (5, 4, 3)])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
def test_sums_of_each_leaf_are_those_of_numpy(dtype, shape):
    with jax.enable_x64(dtype in ("float64", "complex128")):
        a, b, c = (_draw(seed, shape, dtype) for seed in range(3))
        other = _draw(3, (shape[0], 7), dtype)  # of another shape, in the same pass
        pairs = [(a, b), (c, a), (other, other)]
        found = np.asarray(sums([a, b, c, other], pairs))
        assert found.dtype == np.float32
        assert found.shape == (4 + 3, shape[0])
        truth = _truth([a, b, c, other], pairs)
        np.testing.assert_allclose(found[:4], truth[:4], rtol=SUMMED[dtype])
        # of products that cancel, the error is a share of their magnitudes
        lengths = [np.ones(shape[0])] * 3 + [truth[3] ** 2]
        most = np.array([truth[0] * truth[1], truth[2] * truth[0], lengths[3]])
        assert np.all(np.abs(found[4:] - truth[4:]) <= SUMMED[dtype] * most)


def test_blocks_of_several_types_are_summed_together(x64):
    blocks = [_draw(0, (2, 5), "float32"), _draw(1, (2, 5), "complex128")]
    np.testing.assert_allclose(sums(blocks), _truth(blocks), rtol=2e-7)


@pytest.mark.parametrize("value", [1.2e-38, 1e-30, 1e20, 3.4e38])
def test_magnitudes_at_the_ends_of_the_range(value):
    x = jnp.full((2, 40), value, jnp.float32)
    expected = np.minimum(_truth([x])[0], np.finfo(np.float32).max)
    np.testing.assert_allclose(sums([x])[0], expected, rtol=ROUNDED)


def test_a_product_beyond_the_range_is_finite_and_keeps_its_sign():
    x, y = jnp.full((1, 3), 1e30), jnp.full((1, 3), -1e30)
    found = sums([x, y], [(x, x), (x, y)])[2:, 0]
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(found, [largest, -largest])


def test_a_tenth_is_added_a_million_times():
    x = jnp.full((1, 10**6), 0.1)
    exact = 10**3 * float(np.float32(0.1))
    np.testing.assert_allclose(sums([x])[0], exact, rtol=ROUNDED)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_what_is_not_finite_is_counted_in_its_own_leaf(dtype):
    x = _draw(0, (4, 6), dtype)
    x = x.at[1, 0].set(jnp.nan).at[1, 5].set(jnp.inf).at[3, 2].set(-jnp.inf)
    (norms,), wrong = sums([x]), nonfinite([x, x[::-1], x[:, :0]])
    np.testing.assert_array_equal(wrong, [[0, 2, 0, 1], [1, 0, 2, 0], [0] * 4])
    assert wrong.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(norms), [True, False, True, False])
    assert np.isnan(norms[1])
    assert np.isposinf(norms[3])


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0,)])
def test_nothing_sums_to_zero(shape):
    x = jnp.zeros(shape)
    np.testing.assert_array_equal(sums([x, x], [(x, x)]), np.zeros((3, shape[0])))
    np.testing.assert_array_equal(nonfinite([x, x]), np.zeros((2, shape[0])))


def test_equal_shapes_share_one_reduction():
    a, b, c = (_draw(seed, (3, 8, 8), "float32") for seed in range(3))
    text = str(jax.make_jaxpr(lambda: leaf_sums([a, b, c], [(a, b)]))())
    assert text.count("reduce") - text.count("reduce_precision") >= 1
    assert text.count(" reduce[") == 1


@pytest.mark.parametrize("check_vma", [True, False])
def test_shards_of_leaves_are_added_up(check_vma):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("model",))
    x, y = (_draw(seed, (3, 16, 2), "float32") for seed in range(2))
    whole = _draw(2, (3, 4), "float32")  # every device has all of it
    x = x.at[2, 15, 1].set(jnp.nan)

    def run(x, y, whole):
        sharded = leaf_sums([x, y], [(x, y)], axis_name="model")
        alone = leaf_sums([whole], axis_name="model" if check_vma else None)
        return sharded, alone, leaf_nonfinite([x, y], axis_name="model")

    p = jax.P(None, "model")
    mapped = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(p, p, jax.P()),
        out_specs=jax.P(),
        check_vma=check_vma,
    )
    found, alone, wrong = jax.jit(mapped)(x, y, whole)
    np.testing.assert_allclose(found, sums([x, y], [(x, y)]), rtol=ROUNDED, atol=1e-6)
    np.testing.assert_array_equal(wrong, [[0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(alone, sums([whole]))
