"""The schedule that stays."""

import jax.numpy as jnp
import pytest

from gradtx.schedules import constant_schedule
from tests.schedules._values import assert_equals_optax


@pytest.mark.parametrize("value", [0.3, 0.0, -2, 1e-30])
def test_values_equal_optax(value):
    assert_equals_optax("constant_schedule", value)


@pytest.mark.parametrize("value", [5, 0.5, jnp.bfloat16(0.5), jnp.int32(5)])
def test_value_of_any_type_becomes_a_float32_array(value):
    found = constant_schedule(value)(7)
    assert (found.dtype, found.shape) == (jnp.float32, ())
    assert float(found) == float(value)
