"""Weight decay, masked and scheduled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import ArgumentError

PARAMS = {"kernel": jnp.array([[2.0, -4.0]]), "bias": jnp.array([1.0, 3.0])}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": True, "bias": False},
        lambda p: {"kernel": True, "bias": False},
        gradtx.path_matches("kernel"),
        gradtx.ndim_at_least(2),
    ],
)
def test_masked_leaves_do_not_decay(mask):
    tx = gradtx.add_decayed_weights(0.5, mask)
    out, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(out["kernel"], [[2.0, -1.0]])
    np.testing.assert_array_equal(out["bias"], [1.0, 1.0])


def test_schedule_counts_updates():
    tx = gradtx.add_decayed_weights(lambda step: jnp.where(step == 0, 0.5, 0.25))
    state = tx.init(PARAMS)
    first, state = tx.update(GRADS, state, PARAMS)
    second, state = tx.update(GRADS, state, PARAMS)
    np.testing.assert_array_equal(first["bias"], [1.5, 2.5])
    np.testing.assert_array_equal(second["bias"], [1.25, 1.75])
    assert int(state.count) == 2


def test_constant_keeps_no_state():
    assert gradtx.add_decayed_weights(0.1).init(PARAMS) == gradtx.EmptyState()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_updates_keep_their_dtype(dtype):
    grads = jax.tree.map(lambda g: g.astype(dtype), GRADS)
    tx = gradtx.add_decayed_weights(0.5)
    out, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert out["bias"].dtype == jnp.dtype(dtype)


def test_what_is_wrong_is_named():
    with pytest.raises(
        ArgumentError, match=r"weight_decay must be 0 or more, got -0\.1"
    ):
        gradtx.add_decayed_weights(-0.1)
    tx = gradtx.add_decayed_weights(0.1, {"kernel": True})
    with pytest.raises(
        ArgumentError, match="add_decayed_weights: mask must have the structure"
    ):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
    tx = gradtx.add_decayed_weights(0.1)
    with pytest.raises(gradtx.MissingArgumentError, match="got params=None"):
        tx.update(GRADS, tx.init(PARAMS))
    other = {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(2)}
    with pytest.raises(gradtx.ShapeError, match=r"\['kernel'\]: expected \(2, 1\)"):
        tx.update(GRADS, tx.init(PARAMS), other)
