"""Adding updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


@pytest.mark.parametrize("update", ["bfloat16", "float32"])
@pytest.mark.parametrize("param", ["float16", "bfloat16", "float32"])
def test_sum_has_the_parameters_dtype(param, update):
    out = gradtx.apply_updates(jnp.ones(2, param), jnp.full(2, 0.5, update))
    assert out.dtype == jnp.dtype(param)
    np.testing.assert_array_equal(out, 1.5)


def test_small_update_is_rounded_once():
    p, u = jnp.full(1, 1.0, jnp.bfloat16), jnp.full(1, 0.0039, jnp.float32)
    # 1.0039 lies nearer to 1.0078 (the next bfloat16) than to 1: one rounding goes up
    assert float(gradtx.apply_updates(p, u)[0]) == 1.0
    u = jnp.full(1, 0.00391, jnp.float32)
    assert float(gradtx.apply_updates(p, u)[0]) == 1.0078125


def test_none_float0_and_integer_leaves():
    params = {"a": None, "n": jnp.arange(2), "m": jnp.arange(2)}
    updates = {
        "a": None,
        "n": np.zeros(2, jax.dtypes.float0),
        "m": jnp.ones(2, jnp.int8),
    }
    out = gradtx.apply_updates(params, updates)
    assert out["a"] is None
    assert out["n"] is params["n"]
    np.testing.assert_array_equal(out["m"], [1, 2])


@pytest.mark.parametrize(
    ("params", "updates", "error", "pattern"),
    [
        (
            {"w": jnp.ones(3)},
            {"w": jnp.ones((4, 3))},
            gradtx.ShapeError,
            r"apply_updates: updates\['w'\]: expected \(3,\), got \(4, 3\)",
        ),
        (
            {"w": jnp.ones(3), "b": jnp.ones(1)},
            {"w": jnp.ones(3), "b": None},
            gradtx.TreeMismatchError,
            r"updates\['b'\] is missing",
        ),
        (
            {"n": jnp.ones(2, jnp.int32)},
            {"n": jnp.full(2, 0.9)},
            gradtx.DtypeError,
            r"params\['n'\] has dtype int32.*would be cut off",
        ),
        (
            {"w": jnp.ones(2)},
            {"w": jnp.ones(2, jnp.complex64)},
            gradtx.DtypeError,
            r"params\['w'\] is real \(float32\).*complex",
        ),
    ],
)
def test_mismatch_is_named_and_nothing_is_broadcast(params, updates, error, pattern):
    with pytest.raises(error, match=pattern):
        gradtx.apply_updates(params, updates)


def test_64_bit_update_is_added_in_64_bits(x64):
    p, u = jnp.full(1, 1.0, jnp.float32), jnp.full(1, 2.0**-25, jnp.float64)
    out = gradtx.apply_updates(p, u + 2.0**-25 * 1.5)
    assert out.dtype == jnp.float32
    assert float(out[0]) == float(np.float32(1 + 2.5 * 2.0**-25))


def _rows(dtype):
    return {"w": jnp.array([4.0, -2.0], dtype), "n": jnp.array([7, 8]), "none": None}


def test_none_parameters_stay_none_whatever_their_update():
    x = jnp.ones(2)
    assert gradtx.apply_updates(None, x) is None
    assert gradtx.apply_updates({"a": None, "b": x}, {"a": x, "b": x})["a"] is None
    assert gradtx.incremental_update(None, x, 0.5) is None


def test_running_mean_equals_optax_and_its_formula(lenient, x64):
    rng = np.random.default_rng(0)
    news, old = rng.normal(size=(200, 3)), rng.normal(size=3)
    ours: Any = old
    theirs: Any = old
    expected = old
    for new in news:
        ours = gradtx.incremental_update(jnp.asarray(new), jnp.asarray(ours), 0.1)
        theirs = optax.incremental_update(jnp.asarray(new), jnp.asarray(theirs), 0.1)
        expected = 0.1 * new + (1 - 0.1) * expected
    # the same float64 operations; XLA may fuse the sum
    np.testing.assert_allclose(ours, expected, rtol=1e-14)
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.parametrize("new", ["bfloat16", "float32"])
@pytest.mark.parametrize("old", ["float16", "float32"])
def test_running_mean_keeps_its_dtypes(new, old):
    mean = jax.tree.map(jnp.zeros_like, _rows(old))
    step = jax.jit(gradtx.incremental_update)(_rows(new), mean, 0.25)
    assert jax.tree.map(jax.typeof, step) == jax.tree.map(jax.typeof, mean)
    np.testing.assert_array_equal(step["w"], [1.0, -0.5])
    np.testing.assert_array_equal(step["n"], [7, 8])


def test_running_mean_of_real_and_complex():
    new, old = jnp.array([1.0 + 2.0j]), jnp.array([3.0])
    assert gradtx.incremental_update(old, new, 0.5).tolist() == [2.0 + 1.0j]


def test_copy_is_renewed_at_every_period():
    new, old = _rows("float32"), jax.tree.map(jnp.zeros_like, _rows("bfloat16"))
    update = jax.jit(gradtx.periodic_update)
    for step in range(7):
        made = update(new, old, step, 3)
        expected = new if step % 3 == 0 else old
        np.testing.assert_array_equal(made["w"], expected["w"].astype(jnp.bfloat16))
        np.testing.assert_array_equal(made["n"], expected["n"])
        assert made["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "move",
    [
        lambda new, old: gradtx.incremental_update(new, old, 0.5),
        lambda new, old: gradtx.periodic_update(new, old, 1, 2),
    ],
)
def test_moves_name_what_does_not_fit(move):
    with pytest.raises(gradtx.ShapeError, match=r"update: new_tensors\['w'\]: expec"):
        move({"w": jnp.ones(3)}, {"w": jnp.ones(2)})
    with pytest.raises(gradtx.TreeMismatchError, match=r"new_tensors\['w'\] is miss"):
        move({}, {"w": jnp.ones(2)})
