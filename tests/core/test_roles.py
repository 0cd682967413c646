"""Every field of every state says what it is."""

import inspect

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import Role

STATES = sorted(
    {
        value
        for value in vars(gradtx).values()
        if inspect.isclass(value) and hasattr(value, "_fields")
    }
    - {
        gradtx.LookaheadParams,
        gradtx.MaskedNode,
        gradtx.MuonDimensionNumbers,
        gradtx.SplitRealAndImaginaryArrays,
        gradtx.any_shape,
    },
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", STATES, ids=lambda cls: cls.__name__)
def test_every_field_has_a_role(cls):
    assert set(gradtx.roles(cls)) == set(cls._fields)


def test_links_of_a_chain_are_inner_states():
    state = gradtx.chain(gradtx.clip(1.0), gradtx.trace(0.9)).init({"w": jnp.ones(2)})
    assert gradtx.roles(state) == {"clip": Role.INNER, "trace": Role.INNER}


def test_roles_say_the_truth():
    params = {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones(2)}
    tx = gradtx.chain(
        gradtx.apply_if_finite(gradtx.identity(), 2),
        gradtx.add_noise(0.1, 0.5, key=0),
        gradtx.zero_nans(),
        gradtx.accumulate(gradtx.adamw(gradtx.schedules.constant_schedule(0.1)), 2),
    )

    def check(state):
        for field, role in gradtx.roles(state).items():
            value = getattr(state, field)
            if role is Role.INNER:
                check(value)
            elif role is Role.PER_PARAM:
                shapes = jax.tree.map(jnp.shape, value)
                assert shapes == jax.tree.map(jnp.shape, params)
            elif role is Role.COUNT:
                assert (value.dtype, value.shape) == (jnp.int32, ())
            elif role is Role.SCALAR:
                assert (value.dtype, value.shape) == (jnp.float32, ())
            elif role is Role.FLAG:
                assert (value.dtype, value.shape) == (jnp.bool_, ())
            elif role is Role.MEASURED:
                assert not jax.tree.leaves(value)
            elif role is Role.KEY:
                assert (value.dtype, value.shape) == (jnp.uint32, (2,))
            else:
                assert role is Role.FACTORED
                assert jax.tree.structure(value) == jax.tree.structure(params)

    check(tx.init(params))


def test_states_of_others_have_no_roles():
    assert gradtx.roles((1, 2)) == {}
