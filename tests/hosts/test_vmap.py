"""Train many models at once: over parameters, and over hyperparameters."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.hosts import _models

STATES = _models.every_kind_of_state()


@pytest.mark.parametrize("name", ["chain", "accumulate"])
def test_a_batch_of_parameters_trains_as_each_alone(name):
    tx = STATES[name]
    many = [jax.tree.map(lambda x, k=k: k * x, _models.params()) for k in (1, 2)]
    now = jax.tree.map(lambda *x: jnp.stack(x), *many)
    state = jax.vmap(tx.init)(now)
    step = jax.jit(jax.vmap(lambda p, s: _models.step(tx, p, s)))
    for _ in range(3):
        now, state = step(now, state)
    for index, alone in enumerate(many):
        state = tx.init(alone)
        for _ in range(3):
            alone, state = _models.compiled_step(tx, alone, state)
        _models.assert_close(jax.tree.map(lambda x, i=index: x[i], now), alone)


@pytest.mark.parametrize("make", [gradtx.adam, gradtx.adagrad])
def test_a_batch_of_learning_rates_trains_as_each_alone(make):
    def train(rate):
        tx, start = make(rate), _models.params()
        step = lambda carry, _: (_models.step(tx, *carry), None)
        return jax.lax.scan(step, (start, tx.init(start)), None, length=3)[0][0]

    together = jax.jit(jax.vmap(train))(jnp.array([0.001, 0.1]))
    for index, rate in enumerate([0.001, 0.1]):
        alone = _models.plain_loop(make(rate), 3)
        _models.assert_close(jax.tree.map(lambda x, i=index: x[i], together), alone)
