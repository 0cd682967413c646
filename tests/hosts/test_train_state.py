"""Train inside `flax.training.train_state.TrainState`, unmodified."""

from typing import Any

import jax
import pytest
from flax import linen, serialization
from flax.training.train_state import TrainState

import gradtx
from tests.hosts import _models

pytestmark = pytest.mark.usefixtures("lenient")

STATES = _models.every_kind_of_state()


class Regression(linen.Module):
    """The two layers of `_models`, whose parameters have the same names."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="out")(linen.tanh(linen.Dense(4, name="hidden")(x)))


MODEL = Regression()


def fresh(tx: Any) -> TrainState:
    return TrainState.create(
        # a method of one module: those of two equal ones differ, and are retraced
        apply_fn=MODEL.apply,
        params=_models.params(),
        tx=tx,
    )


class Trainer:
    """One compiled step that takes the whole state, and counts its traces."""

    def __init__(self, **options: Any):
        self.traces = 0
        self.step = jax.jit(self._step, **options)

    def _step(self, state: TrainState) -> TrainState:
        self.traces += 1
        x, y = _models.batch()

        def loss(params):
            return ((state.apply_fn({"params": params}, x) - y) ** 2).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    def __call__(self, state: TrainState, steps: int = _models.STEPS) -> TrainState:
        for _ in range(steps):
            state = self.step(state)
        return state


TRAIN = Trainer()


@pytest.mark.parametrize("name", STATES)
def test_training_in_a_train_state_equals_the_plain_loop(name):
    trained = TRAIN(fresh(STATES[name]))
    assert trained.step == _models.STEPS
    _models.assert_close(trained.params, _models.plain_loop(STATES[name]))


@pytest.mark.parametrize("name", STATES)
def test_a_whole_train_state_survives_to_bytes_and_goes_on_with_the_same_bits(name):
    # an odd number of steps, so that `accumulate` is saved half way
    halfway = TRAIN(fresh(STATES[name]), 3)
    restored: Any = serialization.from_bytes(
        fresh(STATES[name]), serialization.to_bytes(halfway)
    )
    assert jax.tree.structure(restored) == jax.tree.structure(halfway)
    _models.assert_same_bits(restored, halfway)
    _models.assert_same_bits(TRAIN(restored, 2), TRAIN(halfway, 2))


def test_equal_optimizer_values_share_one_trace():
    train = Trainer()
    first = train(fresh(_models.optimizer()))
    traces = train.traces
    second = train(fresh(_models.optimizer()))
    assert train.traces == traces
    _models.assert_same_bits(first.params, second.params)
    train(fresh(_models.optimizer(peak=0.01)), 1)
    assert train.traces == traces + 1


def test_a_train_state_can_be_donated_straight_after_create():
    donating = Trainer(donate_argnums=0)(fresh(_models.optimizer()))
    _models.assert_close(donating.params, _models.plain_loop(_models.optimizer()))


def test_the_state_is_reachable_by_link_name_inside_a_train_state():
    state: Any = TRAIN(fresh(_models.optimizer()), 2).opt_state
    assert state.adamw.scale_by_adam.count == 2
    assert state[1][0] is state.adamw.scale_by_adam
    assert isinstance(state[1][0], gradtx.ScaleByAdamState)


def test_packed_parameters_train_as_the_tree_does():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))
    state = TrainState.create(
        apply_fn=lambda variables, x: MODEL.apply(
            {"params": variables["params"].unpack()}, x
        ),
        params=gradtx.pack(_models.params()),
        tx=tx,
    )
    trained: Any = Trainer()(state).params
    _models.assert_close(trained.unpack(), _models.plain_loop(tx))
