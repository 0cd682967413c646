"""Adding updates to parameters."""

import jax
import jax.numpy as jnp
import numpy as np
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
