"""Train inside `flax.nnx.Optimizer`, unmodified."""

from typing import Any

import jax
import pytest
from flax import nnx

import gradtx
from tests.hosts import _models

pytestmark = pytest.mark.usefixtures("lenient")

STATES = _models.every_kind_of_state()


class Regression(nnx.Module):
    """The two layers of `_models`, with the same parameters."""

    def __init__(self):
        self.hidden = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
        nnx.update(self, _models.params())

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))


class Trainer:
    """One compiled step that changes model and optimizer, and counts its traces."""

    def __init__(self):
        self.traces = 0
        self.step = nnx.jit(self._step)

    def _step(self, model: Regression, optimizer: nnx.Optimizer) -> None:
        self.traces += 1
        x, y = _models.batch()
        loss = lambda model: ((model(x) - y) ** 2).mean()
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads, value=value)

    def __call__(self, tx: Any) -> tuple[Any, nnx.Optimizer]:
        model = Regression()
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        for _ in range(_models.STEPS):
            self.step(model, optimizer)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param)), optimizer


@pytest.mark.parametrize("name", ["chain", "accumulate", "partition", "noise"])
def test_training_in_an_nnx_optimizer_equals_the_plain_loop(name):
    params, optimizer = Trainer()(STATES[name])
    assert optimizer.step[...] == _models.STEPS
    _models.assert_close(params, _models.plain_loop(STATES[name]))


def test_equal_optimizer_values_share_one_trace():
    train = Trainer()
    first, _ = train(_models.optimizer())
    traces = train.traces
    second, _ = train(_models.optimizer())
    assert train.traces == traces
    _models.assert_same_bits(first, second)


def test_an_optimizer_state_comes_back_by_split_and_merge():
    _, optimizer = Trainer()(gradtx.adam(0.05))
    definition, state = nnx.split(optimizer)
    again = nnx.merge(definition, jax.tree.map(lambda x: x + 0, state))
    assert again.tx == gradtx.adam(0.05)
    _models.assert_same_bits(nnx.state(again), nnx.state(optimizer))
