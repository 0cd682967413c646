"""The schedule value."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import value_at


@gradtx.schedule
def sawtooth(peak, period=4):
    """Rise to `peak` and fall back."""
    return lambda step: peak * (step % period / period)


def test_is_its_call():
    assert repr(sawtooth(1.0, period=2)) == "sawtooth(1.0, period=2)"
    assert sawtooth(1.0) == sawtooth(1.0, 4)
    assert sawtooth(1.0) != sawtooth(2.0)
    assert pickle.loads(pickle.dumps(sawtooth(1.0))) == sawtooth(1.0)
    assert copy.deepcopy(sawtooth(1.0)) == sawtooth(1.0)
    assert gradtx.build(gradtx.describe(sawtooth(1.0))) == sawtooth(1.0)


@pytest.mark.parametrize(
    "step", [3, np.int64(3), jnp.int32(3), jnp.float32(3.0), 2**31 + 3]
)
def test_value_is_always_a_strong_scalar(step):
    value = sawtooth(1.0)(step)
    assert float(value) == 0.75
    assert (value.shape, value.dtype) == ((), jnp.float32)
    assert not jax.typeof(value).weak_type


def test_value_has_64_bits_where_they_are_enabled(x64):
    value = gradtx.linear_schedule(0.0, 0.1, 4)(1)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(float(value), 0.1 * 0.25, rtol=1e-15)


def test_schedule_around_any_function():
    curve = gradtx.Schedule(lambda step: 2.0)
    assert float(curve(5)) == 2.0
    with pytest.raises(gradtx.DescriptionError, match="opaque"):
        gradtx.describe(curve)


def test_factory_that_returns_no_function_is_named():
    @gradtx.schedule  # type: ignore[arg-type]
    def broken():
        return 0.1

    with pytest.raises(gradtx.ArgumentError, match=r"broken: .*function of the step"):
        broken()


def test_value_at_takes_numbers_functions_and_schedules():
    for it in (0.5, jnp.array(0.5), lambda step: 0.5, gradtx.constant_schedule(0.5)):
        found = value_at(it, jnp.int32(7))
        assert (float(found), found.dtype) == (0.5, jnp.float32)
