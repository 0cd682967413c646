"""Compile: donate everything, pass optimizers as static arguments, trace shapes."""

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
import gradtx.testing
from tests.hosts import _models

STATES = _models.every_kind_of_state()
ALL = STATES | {
    name: tx
    for name, tx in gradtx.testing.catalogue().items()
    if hasattr(gradtx.optimizers, name) and not name.startswith("scale_by_")
}


def addresses(*trees: Any) -> list[int]:
    """Return where each array that holds anything lies in memory."""
    arrays = [x for x in jax.tree.leaves(trees) if isinstance(x, jax.Array) and x.size]
    return [x.unsafe_buffer_pointer() for x in arrays]


def small() -> Any:
    """Return the parameters of one layer, in new buffers."""
    return {"out": _models.params()["out"]}


# DP-SGD wants gradients per example
@pytest.mark.parametrize("name", sorted(set(ALL) - {"dpsgd"}))
def test_everything_can_be_donated_straight_after_init(name):
    tx, traces = ALL[name], []

    def step(params, state, grads):
        traces.append(name)
        extra = {"value": jnp.ones(()), "grad": grads, "value_fn": gradtx.global_norm}
        extra["obj_fn"] = gradtx.testing.objective
        updates, state = tx.update(grads, state, params, **extra)
        # new gradients leave in the buffers of the old ones
        return gradtx.apply_updates(params, updates), state, updates

    donating = jax.jit(step, donate_argnums=(0, 1, 2))
    params = small()
    given = (params, tx.init(params), small())
    for _ in range(3):  # what an update returns can be donated as well
        assert len(set(addresses(given))) == len(addresses(given))
        given = donating(*given)
    assert len(traces) == 1
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(given[0]))


@pytest.mark.parametrize("name", ALL)
def test_init_knows_its_state_from_shapes_alone(name):
    tx, params = ALL[name], small()
    kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    wanted = kinds(tx.init(params))
    assert kinds(jax.eval_shape(tx.init, params)) == wanted
    assert kinds(tx.init(shapes)) == wanted


@pytest.mark.parametrize("name", STATES)
def test_an_equal_value_as_static_argument_is_not_traced_again(name):
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def init(tx, params):
        traces.append(tx)
        return tx.init(params)

    tx = STATES[name]
    again = pickle.loads(pickle.dumps(tx))
    assert again is not tx
    init(tx, small())
    init(again, small())
    assert len(traces) == 1
    init(gradtx.chain(tx), small())
    assert len(traces) == 2


def test_a_compiled_update_equals_the_plain_one():
    tx = STATES["masked"]
    params, state = _models.params(), tx.init(_models.params())
    _models.assert_close(
        _models.step(tx, params, state)[0], _models.compiled_step(tx, params, state)[0]
    )
