"""Host code reads how a run stands, and is told what happened and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.training.train_state import TrainState

import gradtx
from gradtx.guard import check, status

TX = gradtx.guarded(
    gradtx.sgd(0.1), back_off=0.5, roll_back_after=2, raise_after=5, recover_after=2
)


@jax.jit
def _after(state, values):
    def step(state, g):
        _, state = TX.update(jnp.full(1, g), state, jnp.ones(1))
        return state, None

    return jax.lax.scan(step, state, values)[0]


def _state(*values):
    padded = jnp.array(values, jnp.float32)
    return _after(TX.init(jnp.ones(1)), padded)


def test_conditions_from_good_to_exhausted():
    nan, found = np.nan, {}
    assert status(TX.init(jnp.ones(1))).condition == "good"
    for values in (
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, nan, 1],
        [1, nan, nan, nan, 1, nan],
    ):
        found[status(_state(*values)).condition] = values
    assert [*found] == ["good", "backed off", "skipping"]
    assert status(_state(1, *[nan] * 5)).condition == "exhausted"
    # a row cut by good steps that save nothing: three roll-backs to one snapshot
    stuck = [nan, nan, 1, nan, nan, 1, nan, nan, 1]
    assert status(_state(*stuck[:6])).condition == "backed off"
    assert status(_state(*stuck)).condition == "exhausted"


def test_the_numbers_are_those_of_the_run():
    now = status(_state(1, 1, np.nan, np.inf, np.nan, np.nan))
    assert now == ("skipping", 6, 4, 4, 0, 0, 0, 4, 2, 0.0625, 4, 2)
    assert all(type(x) in (str, int, float) for x in now)


def test_the_error_tells_an_operator_what_happened_and_what_to_do():
    assert check(_state(*[1.0] * 6)).condition == "good"
    with pytest.raises(gradtx.DivergedError) as told:
        check(_state(1.0, *[np.nan] * 5))
    message = str(told.value)
    for part in (
        "guarded: the run makes no progress: 5 batches in a row were left out",
        "from batch 2 to 6; the last good one was 1",
        "5 NaN or infinity in the gradients",
        "multiplied by 0.03125; there were 5 back-offs and 2 roll-backs",
        "Parameters and state are those of the last good step or snapshot, and finite",
        "gradtx.observe(tx, per_leaf=True) names it",
    ):
        assert part in message
    with pytest.raises(
        ArithmeticError, match="batch 9 was good again, but not for long"
    ):
        check(_state(*[np.nan, np.nan, 1.0] * 3))


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("bad_updates", "Clip them before"),
        ("spikes", "raise sigmas"),
        ("bad_losses", "Look"),
    ],
)
def test_the_advice_follows_what_came_most(kind, advice):
    state = _state(1.0, *[np.nan] * 5)._replace(**{kind: jnp.asarray(9)})
    with pytest.raises(gradtx.DivergedError, match=advice):
        check(state)


def test_guards_are_found_anywhere_and_the_worst_is_told():
    quiet, loud = TX.init(jnp.ones(1)), _state(1.0, *[np.nan] * 5)
    label = {"a": quiet, "b": (gradtx.EmptyState(), loud)}
    assert status(label).condition == "exhausted"
    train = TrainState.create(
        apply_fn=lambda: None,
        params={"w": jnp.ones(1)},
        tx=gradtx.chain(gradtx.clip(1.0), gradtx.guarded(gradtx.adam(0.1))),
    )
    assert status(train.apply_gradients(grads={"w": jnp.ones(1)})).batches == 1


def test_of_a_population_the_worst_is_told():
    both = jax.tree.map(
        lambda *x: jnp.stack(x), _state(*[1.0] * 6), _state(*[np.nan] * 6)
    )
    assert status(both) == status(_state(*[np.nan] * 6))


def test_without_a_guard_there_is_nothing_to_tell():
    with pytest.raises(
        gradtx.ArgumentError, match="status: there is no guard in Chain"
    ):
        status(gradtx.adam(0.1).init(jnp.ones(1)))
