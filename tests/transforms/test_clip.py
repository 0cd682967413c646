"""Bounds on updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import ArgumentError

GRADS = {"w": jnp.array([[3.0, -4.0], [0.5, 12.0]]), "b": jnp.array([1.0, -2.0])}
PARAMS = {"w": jnp.array([[1.0, 2.0], [3.0, -1.0]]), "b": jnp.array([0.0, 0.0])}


def _once(tx, grads=GRADS, params=PARAMS):
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gradtx.clip(1.0), optax.clip(1.0)),
        (gradtx.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)),
        (gradtx.clip_by_global_norm(1e3), optax.clip_by_global_norm(1e3)),
        (gradtx.clip_by_block_rms(1.0), optax.clip_by_block_rms(1.0)),
        (gradtx.clip_by_block_rms(1e3), optax.clip_by_block_rms(1e3)),
        (gradtx.adaptive_grad_clip(0.1), optax.adaptive_grad_clip(0.1)),
        (gradtx.adaptive_grad_clip(10.0), optax.adaptive_grad_clip(10.0)),
        (
            gradtx.adaptive_grad_clip(0.1, axis=(0,)),
            optax.adaptive_grad_clip(0.1, axis=0),
        ),
    ],
    ids=lambda tx: repr(tx) if isinstance(tx, gradtx.GradientTransformation) else "",
)
def test_numbers_equal_optax(ours, theirs, lenient):
    got, expected = _once(ours), _once(theirs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected
    )


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 3), (2, 3, 4), (2, 2, 3, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_units_of_every_rank_equal_optax(shape, seed, lenient):
    kg, kp = jax.random.split(jax.random.key(seed))
    g, p = 10 * jax.random.normal(kg, shape), jax.random.normal(kp, shape)
    got = _once(gradtx.adaptive_grad_clip(0.5), g, p)
    np.testing.assert_allclose(
        got, _once(optax.adaptive_grad_clip(0.5), g, p), rtol=1e-5
    )


def test_too_many_axes_ask_for_units():
    x = jnp.ones((2,) * 6)
    with pytest.raises(
        ArgumentError, match=r"adaptive_grad_clip: .*6 axes.*Give axis="
    ):
        _once(gradtx.adaptive_grad_clip(0.1), x, x)
    assert _once(gradtx.adaptive_grad_clip(0.1, axis=0), x, x).shape == x.shape


@pytest.mark.parametrize("value", [1e20, 3e38, 1e-3, 5.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [gradtx.clip_by_global_norm, gradtx.clip_by_block_rms])
def test_finite_updates_never_become_zeros(make, value, dtype):
    g = jnp.full((64,), value, dtype)
    out = np.asarray(_once(make(1.0), g, g), np.float64)
    limit = 1 / 8 if make is gradtx.clip_by_global_norm else 1.0
    # one rounding to the update's dtype
    np.testing.assert_allclose(out, min(float(g[0]), limit), rtol=2**-8)


@pytest.mark.parametrize("value", [300.0, 65504.0, 1e-4])
def test_float16_norm_is_right(value):
    g = jnp.full((1000,), value, jnp.float16)
    out = np.asarray(_once(gradtx.clip_by_global_norm(1.0), g, g), np.float64)
    expected = min(float(g[0]), 1000**-0.5)
    np.testing.assert_allclose(out, expected, rtol=2**-10)


def test_updates_within_the_bound_keep_every_bit():
    for tx in (gradtx.clip_by_global_norm(1e3), gradtx.clip_by_block_rms(1e3)):
        out = _once(tx)
        jax.tree.map(np.testing.assert_array_equal, out, GRADS)


def test_zero_updates_stay_zero_and_differentiable():
    zero = jnp.zeros(3)
    for tx in (
        gradtx.clip_by_global_norm(1.0),
        gradtx.clip_by_block_rms(1.0),
        gradtx.adaptive_grad_clip(0.1),
    ):
        np.testing.assert_array_equal(_once(tx, zero, zero), 0)
        grad = jax.grad(lambda g, tx=tx: tx.update(g, tx.init(g), zero)[0].sum())(zero)
        assert np.isfinite(grad).all()


def test_nan_shows_in_every_leaf_of_a_global_clip():
    out = _once(
        gradtx.clip_by_global_norm(1.0), {**GRADS, "b": jnp.array([jnp.nan, 1])}
    )
    assert np.isnan(out["w"]).all()


def test_norm_that_was_compared_is_in_the_state():
    tx = gradtx.clip_by_global_norm(1.0)
    state = tx.init(GRADS)
    assert float(state.norm) == 0.0
    _, state = jax.jit(tx.update)(GRADS, state)
    assert float(state.norm) == float(gradtx.global_norm(GRADS))


def test_norm_after_clipping_is_the_bound():
    out = _once(gradtx.clip_by_global_norm(0.25))
    np.testing.assert_allclose(gradtx.global_norm(out), 0.25, rtol=1e-6)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan")])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (gradtx.clip, "max_delta"),
        (gradtx.clip_by_global_norm, "max_norm"),
        (gradtx.clip_by_block_rms, "threshold"),
        (gradtx.adaptive_grad_clip, "clipping"),
    ],
)
def test_bounds_must_be_positive(make, name, bad):
    pattern = rf"^{make.__name__}: {name} must be positive, got .*leave the link out"
    with pytest.raises(ArgumentError, match=pattern):
        make(bad)


def test_adaptive_clip_needs_parameters():
    tx = gradtx.adaptive_grad_clip(0.1)
    with pytest.raises(gradtx.MissingArgumentError, match=r"^adaptive_grad_clip: "):
        tx.update(GRADS, tx.init(PARAMS))
