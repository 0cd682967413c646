"""Differentiate a loss through several updates."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.hosts import _models

FACTORIES = {
    "sgd": lambda rate: gradtx.sgd(rate, momentum=0.9),
    "clipped adamw": lambda rate: gradtx.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.adamw(rate, weight_decay=0.1)
    ),
    "accumulate": lambda rate: gradtx.accumulate(gradtx.sgd(rate), every=2),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FACTORIES)
def test_the_derivative_by_the_learning_rate_is_that_of_the_loss(name):
    start = jax.tree.map(lambda x: x.astype(jnp.float64), _models.params())
    x, y = (jnp.asarray(v, jnp.float64) for v in _models.batch())

    def loss(params):
        return jnp.mean((_models.predict(params, x) - y) ** 2)

    @jax.jit
    @jax.value_and_grad
    def loss_after(rate):
        tx = FACTORIES[name](rate)

        def step(carry, _):
            now, state = carry
            updates, state = tx.update(jax.grad(loss)(now), state, now)
            return (gradtx.apply_updates(now, updates), state), None

        (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, length=3)
        return loss(end)

    rate, h = jnp.array(0.05), 1e-5
    difference = (loss_after(rate + h)[0] - loss_after(rate - h)[0]) / (2 * h)
    # the error of a central difference: h² times a third derivative of some 100
    assert jnp.allclose(loss_after(rate)[1], difference, rtol=1e-6, atol=1e-7)
    assert difference != 0
