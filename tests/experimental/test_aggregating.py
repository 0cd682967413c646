"""Per-example gradients: aggregated, accumulated, measured."""

import inspect
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating as theirs

import gradtx
from gradtx.experimental import aggregating

GRADS = np.random.default_rng(0).normal(size=(200, 4, 3))  # steps, examples, shape


def _walk(tx, grads, params=None):
    params = jnp.zeros(3, grads.dtype) if params is None else params

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g + jnp.broadcast_to(params, g.shape), state, params)
        return (gradtx.apply_updates(params, updates), state), (updates, state)

    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), grads)[1])()


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_trajectory_equals_optax(axis, steps, lenient, x64):
    grads = jnp.asarray(GRADS if axis == 0 else GRADS.mean(1))

    def path(lib, space):
        gather = space.average_incrementally_updates(axis, steps)
        tx = space.process(lib.clip(1.0), gather, lib.adam(0.1))
        return _walk(tx, grads)[0]

    # float64; optax's mean is taken in the same order
    np.testing.assert_allclose(
        path(gradtx, aggregating), path(optax, theirs), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("steps", [1, 2])
def test_mean_and_variance_equal_numpy_and_optax(steps, lenient, x64):
    decay = 0.8
    grads = jnp.asarray(GRADS)
    tx = aggregating.add_mean_variance_to_opt(gradtx.scale(0.0), decay, 0, steps)
    _, states = _walk(tx, grads)
    last = jax.tree.map(lambda x: x[-1], states)
    mean, variance = aggregating.get_unbiased_mean_and_variance_ema(last)
    m = v = np.zeros(3)
    for sample in GRADS.reshape(200 // steps, 4 * steps, 3):
        m = decay * m + (1 - decay) * sample.mean(0)
        v = decay * v + (1 - decay) * sample.var(0, ddof=1)
    weight = 1 - decay ** (200 // steps)
    np.testing.assert_allclose(mean, m / weight, rtol=1e-12)
    np.testing.assert_allclose(variance, v / weight, rtol=1e-12)

    its = theirs.add_mean_variance_to_opt(optax.scale(0.0), decay, 0, steps)
    _, states = _walk(its, grads)
    found: Any = theirs.get_unbiased_mean_and_variance_ema(
        jax.tree.map(lambda x: x[-1], states)
    )
    np.testing.assert_allclose(mean, found[0], rtol=1e-12)
    # optax divides int32 by int32 over several microbatches, which gives float32
    rtol = 1e-12 if steps == 1 else 1e-6
    np.testing.assert_allclose(variance, found[1], rtol=rtol)


def test_optimizer_rests_until_its_microbatches_are_there():
    gather = aggregating.average_incrementally_updates(0, 3)
    tx = aggregating.process(gradtx.identity(), gather, gradtx.adam(0.1))
    assert isinstance(tx, aggregating.Aggregator)
    updates, states = _walk(tx, jnp.asarray(GRADS[:6], jnp.float32))
    assert [bool(u.any()) for u in updates] == [False, False, True] * 2
    assert states[2].scale_by_adam.count.tolist() == [0, 0, 1, 1, 1, 2]


def test_types_are_a_fixed_point_in_low_precision():
    params = {"w": jnp.ones(3, jnp.bfloat16), "n": jnp.arange(2)}
    grads = {
        "w": jnp.asarray(GRADS[0], jnp.bfloat16),
        "n": np.zeros((4, 2), jax.dtypes.float0),
    }
    for steps in (1, 2):
        tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(1.0), 0.9, 0, steps)
        state = tx.init(params)
        for _ in range(2):
            updates, after = tx.update(grads, state, params)
            assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
            assert updates["w"].dtype == jnp.bfloat16
            assert updates["n"].dtype == jax.dtypes.float0
            assert updates["n"].shape == (2,)
            state = after


def test_several_axes_of_examples():
    g = jnp.asarray(GRADS[:2], jnp.float32)  # (2, 4, 3)
    tx = aggregating.average_per_element_updates((0, 1))
    made, _ = tx.update(g, tx.init(None))
    np.testing.assert_allclose(made, g.mean((0, 1)), rtol=1e-6)
    both = aggregating.get_per_element_mean_and_sum_sq_diff_grads((0, 1))
    (_, aux), _ = both.update(g, both.init(None))
    assert aux["sample_size"] == 8
    np.testing.assert_allclose(
        aux["sum_sq_diff_grads"] / 8, g.var((0, 1)), rtol=1e-5
    )  # float32 sums of 8


def test_nothing_is_nan_before_the_first_update_or_for_one_example():
    tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(1.0))
    state = tx.init(jnp.zeros(3))
    for value in aggregating.get_unbiased_mean_and_variance_ema(state):
        np.testing.assert_array_equal(value, 0.0)
    _, state = tx.update(jnp.ones((1, 3)), state)
    mean, variance = aggregating.get_unbiased_mean_and_variance_ema(state)
    np.testing.assert_allclose(mean, 1.0, rtol=1e-6)
    np.testing.assert_array_equal(variance, 0.0)


def test_a_parameter_named_ready_decides_nothing():
    params = {"ready": jnp.zeros(3)}
    tx = aggregating.process(
        gradtx.identity(),
        gradtx.chain(aggregating.average_per_element_updates(), gradtx.trace(0.5)),
        gradtx.sgd(1.0),
    )
    updates, _ = tx.update({"ready": jnp.ones((2, 3))}, tx.init(params), params)
    np.testing.assert_array_equal(updates["ready"], -1.0)


def test_mistakes_are_named():
    with pytest.raises(gradtx.ArgumentError, match="accumulation_steps must be"):
        aggregating.accumulate_avg_updates(0)
    with pytest.raises(gradtx.ShapeError, match=r"2 in updates\['a'\], 3 in upd"):
        aggregating.get_batch_size_from_per_elt_updates(
            {"a": jnp.ones((2, 1)), "b": jnp.ones((3, 1))}, 0
        )
    with pytest.raises(gradtx.ArgumentError, match="holds no PerElement"):
        aggregating.get_unbiased_mean_and_variance_ema(gradtx.adam(0.1).init({}))
    track = aggregating.track_per_element_mean_and_variance_with_ema()
    with pytest.raises(gradtx.MissingArgumentError, match="needs sum_sq_diff_grads="):
        track.update(jnp.ones(2), track.init(jnp.ones(2)))


def test_has_the_names_and_signatures_of_optax():
    for name, value in vars(theirs).items():
        own = not isinstance(value, types.ModuleType) and not name.startswith("_")
        if not own or getattr(value, "__module__", theirs.__name__) != theirs.__name__:
            continue
        mine = getattr(aggregating, name)
        assert mine.__doc__
        if inspect.isfunction(value):
            ours, its = (inspect.signature(f).parameters for f in (mine, value))
            assert [(p.name, p.default, p.kind) for p in ours.values()] == [
                (p.name, p.default, p.kind) for p in its.values()
            ]
        elif hasattr(value, "_fields") and name != "Aggregator":
            assert mine._fields == value._fields
