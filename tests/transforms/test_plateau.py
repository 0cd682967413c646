"""Scale down on a plateau."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

import gradtx

other: Any = contrib


def _scales(tx, values):
    state, found = tx.init({"w": jnp.ones(1)}), []
    update = jax.jit(tx.update)  # else optax compiles its branches at each step
    for value in values:
        updates, state = update({"w": jnp.ones(1)}, state, value=value)
        found.append(float(updates["w"][0]))
    return found


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 2, "factor": 0.5},
        {"patience": 3, "cooldown": 4, "atol": 0.1, "rtol": 0.0},
        {"patience": 2, "accumulation_size": 3, "rtol": 0.05},
        {"patience": 1, "factor": 0.5, "min_scale": 0.2},
    ],
    ids=str,
)
def test_scales_are_those_of_optax(arguments):
    rng = np.random.default_rng(0)
    values = 2 + np.exp(-np.arange(60) / 10) + 0.05 * rng.normal(size=60)
    values = values.astype(np.float32)
    ours = _scales(gradtx.reduce_on_plateau(**arguments), values)
    theirs = _scales(other.reduce_on_plateau(**arguments), values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert ours[-1] < 1


def test_torch_agrees():
    torch = pytest.importorskip("torch", reason="no small build for this Python")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, cooldown=1, threshold=1e-2
    )
    values = [3.0, 2.0, 2.0, 1.99, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    theirs = []
    for value in values:
        plateau.step(value)
        theirs.append(optimizer.param_groups[0]["lr"])
    # torch reduces after `patience` bad values, here and in optax it is at that many
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=3, cooldown=1, rtol=1e-2)
    assert _scales(tx, values) == theirs


def test_negative_values_can_improve():
    # COMPATIBILITY.md, section 4, 5: every change of a negative value counts for optax
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=2, rtol=0.1)
    assert _scales(tx, [-1.0, -1.2, -1.4, -1.6]) == [1.0] * 4
    assert _scales(tx, [-1.0, -1.01, -1.01]) == [1.0, 1.0, 0.5]


def test_a_nan_is_no_improvement():
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=2)
    assert _scales(tx, [jnp.nan, jnp.nan, 1.0]) == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, "factor must lie in"),
        ({"rtol": -1.0}, "rtol must be 0 or more"),
        ({"rtol": 0.0}, "one of rtol and atol above 0"),
        ({"rtol": 1.5}, "rtol must be at most 1"),
        ({"accumulation_size": 0}, "accumulation_size must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(gradtx.ArgumentError, match=message):
        gradtx.reduce_on_plateau(**arguments)


def test_the_value_is_asked_for():
    tx = gradtx.reduce_on_plateau()
    with pytest.raises(gradtx.MissingArgumentError, match="value=value"):
        tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.ones(1)}))


def test_normalize_gives_norm_one_and_keeps_zeros():
    tx = gradtx.normalize()
    g = {"a": jnp.array([3e20]), "b": jnp.array([-4e20])}
    made, _ = jax.jit(tx.update)(g, tx.init(g))
    np.testing.assert_allclose([made["a"][0], made["b"][0]], [0.6, -0.8], rtol=1e-6)
    zero = {"a": jnp.zeros(2)}
    assert tx.update(zero, tx.init(zero))[0]["a"].tolist() == [0.0, 0.0]


def test_a_cooldown_keeps_the_scale():
    tx = gradtx.reduce_on_plateau(factor=0.5, patience=1, cooldown=3)
    g = {"w": jnp.ones(1)}
    state, scales = tx.init(g), []
    for _ in range(8):
        _, state = tx.update(g, state, value=1.0)
        scales.append(float(state.scale))
    # the first value improves on infinity; then one without improvement, and three at rest
    assert scales == [1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
