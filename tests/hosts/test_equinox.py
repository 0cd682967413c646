"""Train Equinox modules, whose trees hold `None` where nothing is trained."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.hosts import _models

pytestmark = pytest.mark.usefixtures("lenient")

STATES = _models.every_kind_of_state()


class Linear(eqx.Module):
    """A layer with a bias."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.kernel + self.bias


class Regression(eqx.Module):
    """The two layers of `_models`, with a function and a counter as leaves beside."""

    hidden: Linear
    out: Linear
    activation: Callable
    calls: jax.Array

    def __init__(self):
        params = _models.params()
        self.hidden, self.out = (Linear(**params[k]) for k in ("hidden", "out"))
        self.activation = jnp.tanh
        self.calls = jnp.zeros((), jnp.int32)

    def __call__(self, x):
        return self.out(self.activation(self.hidden(x)))

    def params(self):
        layers = {"hidden": self.hidden, "out": self.out}
        return {k: {"bias": v.bias, "kernel": v.kernel} for k, v in layers.items()}


def loss(model):
    x, y = _models.batch()
    return jnp.mean((model(x) - y) ** 2)


@pytest.mark.parametrize("name", ["chain", "accumulate", "masked"])
def test_training_a_filtered_module_equals_the_plain_loop(name):
    tx = STATES[name]

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(loss)(model)
        trained = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(grads, state, trained)
        assert updates.activation is None
        return eqx.apply_updates(model, updates), state

    model = Regression()
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(_models.STEPS):
        model, state = step(model, state)
    _models.assert_close(model.params(), _models.plain_loop(tx))


def test_a_partitioned_module_is_updated_by_apply_updates():
    tx = gradtx.adam(0.05)
    trained, rest = eqx.partition(Regression(), eqx.is_inexact_array)
    state = tx.init(trained)

    @eqx.filter_jit
    def step(trained, state):
        grads = jax.grad(lambda p: loss(eqx.combine(p, rest)))(trained)
        updates, state = tx.update(grads, state, trained)
        return gradtx.apply_updates(trained, updates), state

    for _ in range(_models.STEPS):
        trained, state = step(trained, state)
    assert trained.calls is None
    assert trained.activation is None
    model = eqx.combine(trained, rest)
    _models.assert_close(model.params(), _models.plain_loop(tx))


def test_a_module_of_bools_is_a_mask_although_it_can_be_called():
    trained = eqx.filter(Regression(), eqx.is_inexact_array)
    mask = jax.tree.map(lambda x: x.ndim == 2, trained)
    tx = gradtx.masked(gradtx.set_to_zero(), mask)
    updates, _ = jax.jit(tx.update)(trained, tx.init(trained), trained)
    assert not updates.hidden.kernel.any()
    assert (updates.hidden.bias == trained.hidden.bias).all()
