"""How the loss scale moves, against a model, against torch, and at its bounds."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import serialization

import gradtx
from gradtx import precision
from tests.precision._model import GOOD, INF, MINUS_INF, NAN, ZERO, Scaler, trace

PARAMS = jnp.float32(3.0)
STEPS = 64
RULES = [
    Scaler(16.0, interval=3, minimum=1.0, maximum=64.0),
    Scaler(2.0**-3, interval=1, hysteresis=2, minimum=2.0**-4, maximum=2.0),
    Scaler(8.0, growth=4.0, backoff=0.25, interval=2, hysteresis=3, maximum=32.0),
    Scaler(2.0**16, growth=8.0, interval=5, minimum=2.0**10),
]


def gradient(scale, fault):
    """Return the gradient of a loss whose true gradient is 0.5."""
    bad = jnp.array([0.0, jnp.nan, jnp.inf, -jnp.inf, 0.0])[fault]
    return jnp.where(fault == GOOD, 0.5 * scale, bad)


def counts(state):
    """Return what the model tells, in its order."""
    return (state.scale, *state[1:7])


@functools.cache
def runner(rule):
    """Return a compiled function of faults `(runs, steps)`: what each step gives."""
    # the count inside shows which gradients have reached `inner`
    inner = gradtx.scale_by_schedule(gradtx.constant_schedule(-1.0))
    tx = gradtx.dynamic_loss_scaling(inner, **rule._asdict())

    def step(state, fault):
        updates, state = tx.update(gradient(state.scale, fault), state, PARAMS)
        return state, (updates, state.inner_state.count, *counts(state))

    run = lambda faults: jax.lax.scan(step, tx.init(PARAMS), faults)[1]
    return jax.jit(jax.vmap(run))


def drawn(runs, seed):
    """Return faults `(runs, steps)`, of every density, in bursts and alone."""
    draw = np.random.default_rng(seed)
    density = draw.uniform(0, 1, (runs, 1)) ** 2
    bad = draw.uniform(size=(runs, STEPS)) < density
    late = np.roll(bad, 1, axis=1) & (draw.uniform(size=(runs, 1)) < 0.5)
    kinds = draw.choice([NAN, INF, MINUS_INF], (runs, STEPS))
    calm = draw.choice([GOOD, GOOD, GOOD, ZERO], (runs, STEPS))
    return np.where(bad | late, kinds, calm)


def compare(runs, seed):
    for index, rule in enumerate(RULES):
        faults = drawn(runs // len(RULES), seed + index)
        updates, steps, *made = map(np.asarray, runner(rule)(faults))
        wanted = np.array([trace(rule, row.tolist()) for row in faults])
        for column, values in enumerate(made):
            np.testing.assert_array_equal(values, wanted[..., column])
        good = (faults == GOOD) | (faults == ZERO)
        np.testing.assert_array_equal(updates, np.where(faults == GOOD, -0.5, 0.0))
        np.testing.assert_array_equal(steps, good.cumsum(1))


def test_scale_and_counts_are_those_of_the_model():
    compare(2_000, seed=0)


@pytest.mark.slow
def test_campaign_of_100_000_fault_patterns():
    for part in range(5):
        compare(20_000, seed=100 + 10 * part)


def test_it_moves_as_torch_moves_it():
    faults = drawn(8, seed=5)
    rule = Scaler(2.0**10, interval=3, minimum=2.0**-100, maximum=2.0**100)
    made = np.asarray(runner(rule)(faults)[2])
    for row, ours in zip(faults, made, strict=True):
        scaler = torch.amp.GradScaler(
            "cpu", init_scale=rule.initial, growth_interval=rule.interval
        )
        weight = torch.nn.Parameter(torch.tensor(3.0))
        optimizer = torch.optim.SGD([weight], 1.0)
        scaler.scale(torch.tensor(0.0))  # makes the scale
        theirs = []
        for fault in row.tolist():
            weight.grad = torch.tensor([1.0, np.nan, np.inf, -np.inf, 0.0][fault])
            scaler.step(optimizer)
            scaler.update()
            theirs.append(scaler.get_scale())
        assert ours.tolist() == theirs


def test_it_grows_at_the_interval_and_not_after_it():
    tx = gradtx.dynamic_loss_scaling(gradtx.identity(), initial=256, interval=2)
    state, scales = tx.init(PARAMS), []
    for _ in range(4):
        _, state = tx.update(PARAMS, state, PARAMS)
        scales.append(float(state.scale))
    assert scales == [256, 512, 512, 1024]


def test_the_scale_stops_at_its_bounds_and_tells():
    faults = np.array([[ZERO] * 400, [NAN] * 400])
    updates, _, scales, *rest = runner(Scaler(interval=1))(faults)
    assert not updates.any()
    assert scales[0, -1] == scales.max() == 2.0**24
    assert rest[-1][:, -1].tolist() == [400, 0]
    assert scales[1, -1] == scales.min() == 1.0
    assert rest[4][1].tolist() == [0] * 16 + [*range(1, 385)]


def _stuck():
    tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0), initial=2)
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = tx.update(jnp.float32(jnp.nan), state, PARAMS)
    return tx, state


def test_check_raises_until_a_gradient_is_finite():
    tx, state = _stuck()
    message = r"check: the last 2 gradients in a row .* loss scale of 1, .* 3 were left"
    with pytest.raises(gradtx.DivergedError, match=message):
        precision.check(state)
    with pytest.raises(ArithmeticError, match="smaller learning rate"):
        precision.check({"opt_state": state}, patience=2)
    precision.check(state, patience=3)
    updates, state = tx.update(jnp.float32(0.5), state, PARAMS)
    assert updates == -0.5
    precision.check(state)


def _by_flax(state, fresh):
    return serialization.from_bytes(fresh, serialization.to_bytes(state))


@pytest.mark.parametrize(
    "written", [_by_flax, lambda state, _: pickle.loads(pickle.dumps(state))]
)
def test_a_state_saved_in_any_phase_goes_on_bit_for_bit(written):
    rule = Scaler(4.0, interval=3, hysteresis=2, minimum=1.0, maximum=8.0)
    tx = gradtx.dynamic_loss_scaling(gradtx.sgd(1.0, 0.9), **rule._asdict())

    @jax.jit
    def step(state, fault):
        return tx.update(gradient(state.scale, fault), state, PARAMS)

    # up to the maximum, past it, down through the hysteresis, stuck, and up again
    faults = [GOOD] * 8 + [INF, GOOD, *[NAN] * 6] + [GOOD] * 4 + [INF, *[GOOD] * 4]
    state, seen = tx.init(PARAMS), set()
    restored = state
    for fault in faults:
        restored = jax.tree.map(jnp.asarray, written(restored, tx.init(PARAMS)))
        updates, state = step(state, fault)
        again, restored = step(restored, fault)
        for a, b in zip(
            *map(jax.tree.leaves, ((updates, state), (again, restored))), strict=True
        ):
            assert a.dtype == b.dtype
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        seen.add((float(state.scale), int(state.hysteresis_left), bool(state.at_min)))
    assert len({scale for scale, _, _ in seen}) == 4
    assert any(stuck for *_, stuck in seen)


def test_new_states_and_hyperparameters_in_them_are_not_traced_anew():
    traces = 0
    factory = gradtx.inject_hyperparams(gradtx.dynamic_loss_scaling)
    tx = factory(gradtx.sgd(1.0), initial=64.0, maximum=64.0)

    @jax.jit
    def step(grads, state):
        nonlocal traces
        traces += 1
        return tx.update(grads, state, PARAMS)

    state = tx.init(PARAMS)
    for value in (1.0, np.inf, 0.0, 2.0):
        _, state = step(jnp.float32(value), state)
    state.hyperparams["backoff"] = jnp.float32(0.25)
    _, state = step(jnp.float32(np.nan), state)
    assert traces == 1
    assert state.inner_state.scale == 64 * 0.5 * 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": 1000}, r"initial must be a power of two .* got 1000.*is 1024\."),
        ({"initial": 0}, "initial must be a power of two"),
        ({"initial": float("inf")}, "initial must be a power of two"),
        ({"maximum": 2.0**127}, "maximum must be a power of two between 2.-126 and"),
        ({"growth": 1}, "growth must be above 1, such as 2, got 1"),
        ({"growth": 3}, "growth must be a power of two"),
        ({"backoff": 2}, "backoff must be below 1, such as 0.5, got 2"),
        ({"backoff": -0.5}, "backoff must be a power of two"),
        ({"interval": 0}, "interval must be an integer of at least 1, got 0"),
        ({"hysteresis": 1.5}, "hysteresis must be an integer of at least 1"),
        ({"initial": 1, "minimum": 2}, r"initial must lie in \[minimum, maximum\]"),
        ({"initial": 2**25}, r"\[1, 16777216\], got 33554432"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change, message):
    with pytest.raises(
        gradtx.ArgumentError, match="dynamic_loss_scaling: .*" + message
    ):
        gradtx.dynamic_loss_scaling(gradtx.sgd(1.0), **change)
    with pytest.raises(
        gradtx.ArgumentError, match="static_loss_scaling: scale must be"
    ):
        gradtx.static_loss_scaling(gradtx.sgd(1.0), 0.3)
