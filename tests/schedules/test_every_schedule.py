"""What holds for every schedule: transformations of JAX, dtypes, being a value."""

import inspect
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import schedules as g
from tests.schedules._values import STEPS, one_by_one, values

CYCLE = {"init_value": 0.0, "warmup_steps": 5, "decay_steps": 40}

#: each schedule as a function of its highest value
MAKERS = {
    "constant_schedule": lambda v: g.constant_schedule(v),
    "linear_schedule": lambda v: g.linear_schedule(v, 0.1, 40, 5),
    "polynomial_schedule": lambda v: g.polynomial_schedule(v, 0.0, 0.5, 40),
    "exponential_decay": lambda v: g.exponential_decay(v, 7, 0.8, 5, True, 0.01),
    "piecewise_constant_schedule": lambda v: g.piecewise_constant_schedule(
        v, {20: 0.1, 5: 0.5}
    ),
    "piecewise_interpolate_schedule": lambda v: g.piecewise_interpolate_schedule(
        "cosine", v, {20: 0.1, 5: 0.5}
    ),
    "cosine_decay_schedule": lambda v: g.cosine_decay_schedule(v, 40, 0.1, 0.5),
    "warmup_constant_schedule": lambda v: g.warmup_constant_schedule(0.0, v, 5),
    "warmup_cosine_decay_schedule": lambda v: g.warmup_cosine_decay_schedule(
        0.0, v, 5, 40, 0.01
    ),
    "warmup_exponential_decay_schedule": lambda v: g.warmup_exponential_decay_schedule(
        0.0, v, 5, 7, 0.8, end_value=0.01
    ),
    "warmup_stable_decay_schedule": lambda v: g.warmup_stable_decay_schedule(
        0.0, v, 5, 10, 20, decay_shape="1-sqrt"
    ),
    "inverse_sqrt_schedule": lambda v: g.inverse_sqrt_schedule(v, 5, timescale=9),
    "linear_onecycle_schedule": lambda v: g.linear_onecycle_schedule(40, v),
    "cosine_onecycle_schedule": lambda v: g.cosine_onecycle_schedule(40, v),
    "sgdr_schedule": lambda v: g.sgdr_schedule(
        [CYCLE | {"peak_value": v}, CYCLE | {"peak_value": 0.5, "end_value": 0.1}]
    ),
    "join_schedules": lambda v: g.join_schedules(
        [g.linear_schedule(0.0, v, 5), g.cosine_decay_schedule(v, 40)], [5]
    ),
}
MADE = {name: make(0.7) for name, make in MAKERS.items()}

every = pytest.mark.parametrize("name", MAKERS)
either_width = pytest.mark.parametrize("bits", [32, 64])


def test_none_is_left_out():
    assert set(MAKERS) == {name for name in vars(g) if name[0] != "_"} - {"plot"}


@every
def test_signature_is_that_of_optax(name):
    theirs = getattr(optax.schedules, name, None)
    if theirs is None:
        assert name in ("warmup_stable_decay_schedule", "inverse_sqrt_schedule")
        return
    ours, theirs = (
        [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
        for f in (getattr(g, name), theirs)
    )
    assert ours == theirs


@every
@either_width
def test_value_is_a_scalar_array_of_the_widest_float(name, bits):
    with jax.enable_x64(bits == 64):
        for step in (0, 10**12, 2.5, np.array(3)):
            value = MADE[name](step)
            assert isinstance(value, jax.Array)
            assert (value.shape, value.dtype.name) == ((), f"float{bits}")


@every
def test_compiled_values_equal_plain_ones(name):
    some = STEPS[::7]
    compiled = jax.jit(jax.vmap(MADE[name]))(jnp.asarray(some))
    plain = one_by_one(MADE[name], some)
    # compiled, divisions by constants become products: a few roundings of the peak
    np.testing.assert_allclose(compiled, plain, rtol=1e-6, atol=2e-7)


@every
def test_array_of_steps_is_taken_element_by_element(name):
    found = MADE[name](jnp.asarray(STEPS))
    expected = values(MADE[name])
    np.testing.assert_array_equal(found, expected)


@every
def test_float_step_of_a_whole_number_equals_the_integer(name):
    for step in (0, 5, 17, 40, 100):
        whole, real = MADE[name](step), MADE[name](float(step))
        np.testing.assert_allclose(real, whole, rtol=1e-6)


@every
def test_population_of_values_in_64_bits(name, x64):
    peaks = jnp.array([0.25, 1.5], jnp.float32)
    found = jax.jit(jax.vmap(lambda v: MAKERS[name](v)(STEPS)))(peaks)
    expected = [values(MAKERS[name](float(v))) for v in peaks]
    assert found.dtype == jnp.float64
    # compiled, float64 keeps 1e-16 of the peak after a few roundings
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


@every
def test_derivative_by_the_value_is_the_difference_quotient(name):
    with jax.enable_x64(True):
        one = jax.grad(lambda v, t: MAKERS[name](v)(t))
        slope = jax.jit(jax.vmap(one, (None, 0)))
        high, low = (values(MAKERS[name](0.7 + d)) for d in (1e-6, -1e-6))
        found = slope(0.7, jnp.asarray(STEPS))
        # schedules are at most linear in it: the quotient is off by rounding only
        np.testing.assert_allclose(found, (high - low) / 2e-6, rtol=0, atol=1e-9)
        assert np.abs(found).max() > 0.5


@every
def test_schedule_is_the_call_that_made_it(name):
    made, again, other = MADE[name], MAKERS[name](0.7), MAKERS[name](0.6)
    assert repr(made).startswith(f"{name}(")
    assert eval(repr(made), dict(vars(g))) == made
    assert made == again
    assert hash(made) == hash(again)
    assert made != other


@every
def test_schedule_survives_pickle_and_json(name):
    made = MADE[name]
    data = gradtx.describe(made)
    assert data["call"] == f"gradtx.{name}"
    for copy in (
        pickle.loads(pickle.dumps(made)),
        gradtx.build(data),
        gradtx.build(json.loads(json.dumps(data))),
    ):
        assert copy == made
        np.testing.assert_array_equal(values(copy), values(made))


def test_nested_schedules_survive_in_an_optimizer():
    inner = g.join_schedules([MADE["linear_schedule"], MADE["sgdr_schedule"]], [9])
    outer = g.join_schedules((inner, MADE["piecewise_constant_schedule"]), (50,))
    tx = gradtx.sgd(outer)
    assert gradtx.build(json.loads(json.dumps(gradtx.describe(tx)))) == tx


@every
def test_schedule_of_a_traced_value_is_compiled_once(name):
    traces = []

    @jax.jit
    def at(peak, step):
        traces.append(step)
        return MAKERS[name](peak)(step)

    for step in (0, 5, 17, 60):
        found = at(jnp.bfloat16(0.75), step)
        assert found.dtype == jnp.float32
        # compiled, divisions by constants become products
        np.testing.assert_allclose(found, MAKERS[name](0.75)(step), rtol=2e-6)
    assert len(traces) == 1
