"""The loss is multiplied by the scale, wherever in the state that is."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx
from gradtx import precision
from tests.hosts import _models

SCALED = gradtx.dynamic_loss_scaling(gradtx.sgd(0.1), initial=8, interval=2)
PARAMS = {"w": jnp.array([1.0, 2.0])}


def half_loss(params, x):
    """Return a loss that is computed in float16 up to the last sum."""
    outputs = x.astype(jnp.float16) * jnp.broadcast_to(params["w"], x.shape).astype(
        jnp.float16
    )
    return jnp.mean(outputs.astype(jnp.float32) ** 2)


@pytest.mark.parametrize(
    "tx",
    [
        SCALED,
        gradtx.accumulate(SCALED, 2),
        gradtx.observe(gradtx.accumulate(SCALED, 2)),
        gradtx.chain(gradtx.identity(), SCALED),
        gradtx.partition({True: SCALED, False: gradtx.set_to_zero()}, {"w": True}),
    ],
)
def test_the_scale_is_found_at_any_depth(tx):
    state = tx.init(PARAMS)
    assert precision.loss_scale(state) == 8
    scaled = precision.scale_loss(jnp.float32(0.5), state)
    assert (scaled.dtype, float(scaled)) == (jnp.float32, 4.0)
    precision.check(state)


def test_no_scale_and_two_scales_are_told():
    with pytest.raises(
        gradtx.ArgumentError, match="loss_scale: there is no loss scale"
    ):
        precision.loss_scale(gradtx.sgd(0.1).init(PARAMS))
    both = gradtx.partition({"a": SCALED, "b": SCALED}, {"w": "a"})
    message = r"scale_loss: there are 2 loss scales .* at inner_states.a.*, inner_st"
    with pytest.raises(gradtx.ArgumentError, match=message):
        precision.scale_loss(1.0, both.init(PARAMS))
    with pytest.raises(gradtx.ArgumentError, match="patience must be an integer"):
        precision.check(SCALED.init(PARAMS), patience=0)


def test_value_and_gradient_are_those_of_jax_and_its_multiple():
    state, x = SCALED.init(PARAMS), jnp.array([3.0, 0.5])
    value, grads = precision.value_and_grad(half_loss)(state, PARAMS, x)
    wanted, slopes = jax.value_and_grad(half_loss)(PARAMS, x)
    assert (value.dtype, float(value)) == (jnp.float32, float(wanted))
    np.testing.assert_array_equal(grads["w"], 8 * slopes["w"])

    def with_aux(x, params, *, power):
        return half_loss(params, x).astype(jnp.bfloat16) ** power, {"x": x}

    both = precision.value_and_grad(with_aux, argnums=(0, 1), has_aux=True)
    (value, aux), (by_x, by_params) = both(state, x, PARAMS, power=1)
    assert value.dtype == jnp.float32
    assert aux["x"] is x
    np.testing.assert_array_equal(by_params["w"], grads["w"])
    assert by_x.shape == x.shape


def test_the_first_step_in_float16_does_not_overflow_by_itself():
    tx = gradtx.dynamic_loss_scaling(gradtx.sgd(0.1))
    x = jnp.full((8, 2), 0.5)  # a mean of 16 terms: no single one gets all of the scale
    half = jax.tree.map(lambda p: p.astype("float16"), PARAMS)
    for params in (PARAMS, half):
        state = tx.init(params)
        _, grads = precision.value_and_grad(half_loss)(state, params, x)
        updates, after = tx.update(grads, state, params)
        assert (after.good_steps, after.total_skips) == (1, 0)
        wanted = jax.grad(half_loss)(PARAMS, x)["w"]
        assert updates["w"].dtype == params["w"].dtype
        np.testing.assert_allclose(updates["w"], -0.1 * wanted, rtol=1e-3)
        assert precision.scale_loss(1.0, state).dtype == jnp.float32
        assert not precision.scale_loss(1.0, state).weak_type


@pytest.mark.parametrize("loss", [jnp.float16(1), jnp.int32(1), jnp.complex64(1)])
def test_a_loss_that_cannot_be_scaled_is_refused(loss):
    with pytest.raises(
        gradtx.DtypeError, match=f"loss has dtype {loss.dtype}: .*float32"
    ):
        precision.scale_loss(loss, SCALED.init(PARAMS))


def test_a_loss_of_64_bits_stays_one():
    with jax.enable_x64(True):
        params = jnp.ones(2, jnp.float64)
        state = SCALED.init(params)
        value, grads = precision.value_and_grad(jnp.sum)(state, params)
        assert value.dtype == grads.dtype == jnp.float64
        updates, after = SCALED.update(grads, state, params)
        assert updates.dtype == jnp.float64
        np.testing.assert_array_equal(updates, -0.1)
        assert after.scale.dtype == jnp.float32


def _wanted():
    """Return what plain training without a scale comes to."""
    return _models.plain_loop(gradtx.sgd(0.1), 3)


@pytest.mark.usefixtures("lenient")
def test_it_trains_in_a_train_state():
    x, y = _models.batch()
    tx = gradtx.accumulate(SCALED, every=1)
    state = TrainState.create(
        apply_fn=_models.predict, params=_models.params(), tx=cast("Any", tx)
    )

    @jax.jit
    def step(state: Any) -> Any:
        loss = lambda params: jnp.mean((state.apply_fn(params, x) - y) ** 2)
        value, grads = precision.value_and_grad(loss)(state, state.params)
        return state.apply_gradients(grads=grads), value

    for _ in range(3):
        state, _ = step(state)
    assert precision.loss_scale(state) == 16
    precision.check(state)
    _models.assert_close(state.params, _wanted())


@pytest.mark.usefixtures("lenient")
def test_it_trains_in_an_nnx_optimizer():
    x, y = _models.batch()

    class Model(nnx.Module):
        def __init__(self):
            self.weights = nnx.data(jax.tree.map(nnx.Param, _models.params()))

        def __call__(self, x):
            return _models.predict(jax.tree.map(lambda w: w[...], self.weights), x)

    model = Model()
    optimizer = nnx.Optimizer(model, cast("Any", SCALED), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        def loss(model: Any) -> Any:
            return precision.scale_loss(jnp.mean((model(x) - y) ** 2), optimizer)

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(3):
        step(model, optimizer)
    assert precision.loss_scale(optimizer) == 16
    precision.check(optimizer)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))["weights"]
    _models.assert_close(trained, _wanted())
