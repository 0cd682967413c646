"""Differentially private aggregation: the bound, the noise and the types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def _grads(dtype="float32", scale=1.0):
    rng = np.random.default_rng(0)
    draw = lambda *s: jnp.asarray(scale * rng.normal(size=s)).astype(dtype)
    return {"w": draw(8, 3, 2), "b": draw(8, 2), "none": None}


def test_is_the_mean_of_bounded_examples():
    grads = _grads()
    tx = gradtx.differentially_private_aggregate(1.5, 0.0, key=0)
    ours, _ = tx.update(grads, tx.init(None))
    w, b = (np.asarray(grads[k], np.float64) for k in "wb")
    norm = np.sqrt((w**2).sum((1, 2)) + (b**2).sum(1))
    factor = np.minimum(1, 1.5 / norm)
    np.testing.assert_allclose(ours["b"], (b.T * factor).T.mean(0), rtol=1e-5)
    expected = (w * factor[:, None, None]).mean(0)
    np.testing.assert_allclose(ours["w"], expected, rtol=1e-5, atol=1e-7)


def test_noise_is_on_the_sum_and_differs_by_leaf_and_step():
    grads = {"a": jnp.zeros((4, 20000)), "b": jnp.zeros((4, 20000))}
    tx = gradtx.differentially_private_aggregate(2.0, 3.0, key=0)
    state = tx.init(None)
    one, state = tx.update(grads, state)
    two, _ = tx.update(grads, state)
    for u in (*one.values(), *two.values()):
        # the deviation of 20000 draws is within 2 %, 4 deviations of its own
        np.testing.assert_allclose(np.std(u), 2.0 * 3.0 / 4, rtol=0.02)
    rows = np.stack([*one.values(), *two.values()])
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 0.04


@pytest.mark.parametrize("scale", [1e-7, 1.0, 6e4])
def test_float16_cannot_escape_the_bound(scale):
    grads = {"w": jnp.full((1, 4096), scale, jnp.float16)}
    tx = gradtx.differentially_private_aggregate(1e-5, 0.0, key=0)
    ours, _ = tx.update(grads, tx.init(None))
    assert ours["w"].dtype == jnp.float16
    # 64² numbers, each rounded by half of float16's least number, 6e-8
    norm = np.linalg.norm(np.asarray(ours["w"], np.float64))
    assert 0 < norm <= 1e-5 + 64 * 3e-8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_types_and_shapes_are_those_of_the_parameters(dtype, momentum):
    params = {"w": jnp.ones((3, 2), dtype), "b": jnp.ones(2, dtype), "none": None}
    grads = {"w": jnp.ones((8, 3, 2), dtype), "b": jnp.ones((8, 2), dtype)}
    grads = grads | {"none": None}
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=3, momentum=momentum)
    state = tx.init(params)
    updates, after = tx.update(grads, state, params)
    types = lambda tree: jax.tree.map(jax.typeof, tree)
    assert types(updates) == types(params)
    assert types(after) == types(state)
    assert after[0].rng_key.dtype == jnp.uint32


def test_descends_in_a_compiled_loop_with_donation():
    tx = gradtx.dpsgd(0.1, 10.0, 0.01, seed=0, momentum=0.5)
    params = {"w": jnp.full(4, 3.0)}

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda p: jnp.stack([p, p]), params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    run = jax.jit(lambda c: jax.lax.scan(step, c, length=100)[0], donate_argnums=0)
    params, _ = run((params, tx.init(params)))
    assert np.abs(params["w"]).max() < 0.2


def test_integer_parameters_pass():
    grads = {"w": jnp.ones((2, 3)), "n": np.zeros((2, 3), jax.dtypes.float0)}
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, key=0)
    updates, _ = tx.update(grads, tx.init(None))
    assert updates["n"].dtype == jax.dtypes.float0
    assert updates["n"].shape == updates["w"].shape == (3,)


def test_wrong_arguments_are_named():
    aggregate = gradtx.differentially_private_aggregate
    with pytest.raises(gradtx.ArgumentError, match="exactly one of key= and seed="):
        aggregate(1.0, 1.0)
    with pytest.raises(gradtx.ArgumentError, match="give a seed"):
        gradtx.dpsgd(0.1, 1.0, 1.0, seed=None)  # pyright: ignore
    with pytest.raises(gradtx.ArgumentError, match="noise_multiplier"):
        aggregate(1.0, -1.0, key=0)
    tx = aggregate(1.0, 1.0, key=0)
    uneven = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    with pytest.raises(gradtx.ShapeError, match="examples on axis 0"):
        tx.update(uneven, tx.init(None))


def test_unitwise_clip_shrinks_only_large_units():
    g = jnp.array([[3.0, 0.1], [4.0, 0.0]])
    norm = gradtx.unitwise_norm(g)
    u = gradtx.unitwise_clip(norm, jnp.ones((2, 2)), g)
    np.testing.assert_allclose(u, [[0.6, 0.1], [0.8, 0.0]], rtol=1e-6)
    with pytest.raises(gradtx.ShapeError, match="unitwise_clip"):
        gradtx.unitwise_clip(norm, jnp.ones(2), g)
