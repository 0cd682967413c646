"""Calls outside jit: compiled where functions are known to be pure, else run as is."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import gradtx
from gradtx.core import _eager

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
GRADS = {"w": jnp.full((3, 2), 0.5), "b": jnp.full(2, -2.0)}


class Counted:
    """A schedule of the user's that tells how often Python ran it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 0.1


def calls_of(wrap):
    rate = Counted()
    tx = wrap(gradtx.sgd(rate, momentum=0.9))
    state = tx.init(PARAMS)
    made = []
    for _ in range(4):
        before = rate.calls
        _, state = tx.update(GRADS, state, PARAMS)
        made.append(rate.calls - before)
    return made


def test_functions_of_the_user_run_at_every_call_unless_declared_pure():
    assert calls_of(lambda tx: tx) == [1, 1, 1, 1]
    assert calls_of(gradtx.compiled) == [1, 0, 0, 0]


def test_declared_transformation_is_compiled():
    runs = []

    def make(pure):
        @gradtx.transformation(pure=pure)
        def halve():
            def update(updates, state, params=None):
                runs.append(pure)
                return jax.tree.map(lambda g: g / 2, updates), state

            return gradtx.init_empty_state, update

        return halve()

    for pure in (True, None):
        for _ in range(3):
            updates, _ = make(pure).update(GRADS, gradtx.EmptyState())
            assert updates["b"].tolist() == [-1.0, -1.0]
    assert runs.count(True) <= 3
    assert runs.count(None) == 3


@pytest.mark.parametrize(
    ("tx", "pure"),
    [
        (gradtx.adam(1e-3), True),
        (gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9)), True),
        (gradtx.adamw(1e-3, mask=gradtx.ndim_at_least(2)), True),
        (gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)), True),
        (gradtx.inject_hyperparams(gradtx.adam)(1e-3), True),
        (gradtx.sgd(lambda step: 0.1), False),
        (gradtx.chain(gradtx.clip(1.0), gradtx.sgd(lambda step: 0.1)), False),
        (gradtx.inject_hyperparams(gradtx.sgd)(lambda step: 0.1), False),
        (gradtx.sgd(jnp.float32(0.1)), False),  # may be another array at each step
        (gradtx.chain((lambda p: (), lambda u, s, p=None: (u, s))), False),
        (gradtx.compiled(gradtx.sgd(lambda step: 0.1)), True),
    ],
)
def test_what_is_known_to_be_pure(tx, pure):
    assert tx.pure is pure


def test_numbers_are_those_of_a_compiled_step():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))
    outside = inside = tx.init(PARAMS)
    ours = theirs = None
    for _ in range(3):
        ours, outside = tx.update(GRADS, outside, PARAMS)
        theirs, inside = jax.jit(tx.update)(GRADS, inside, PARAMS)
    assert jax.tree.structure(outside) == jax.tree.structure(inside)
    for x, y in zip(
        jax.tree.leaves((ours, outside)), jax.tree.leaves((theirs, inside)), strict=True
    ):
        np.testing.assert_array_equal(x, y)
        assert jax.typeof(x) == jax.typeof(y)


def test_equal_transformations_share_what_is_compiled_while_they_live():
    gc.collect()
    before = len(_eager._SHARED)
    one, other = gradtx.adam(0.0123), gradtx.adam(0.0123)
    state = one.init(PARAMS)
    one.update(GRADS, state)
    alone = len(_eager._SHARED)
    other.update(GRADS, other.init(PARAMS))
    assert len(_eager._SHARED) == alone == before + 2  # init and update
    del one, other, state
    gc.collect()
    assert len(_eager._SHARED) == before


def test_disable_jit_shows_concrete_numbers():
    seen = []

    @gradtx.transformation(pure=True)
    def look():
        def update(updates, state, params=None):
            seen.append(updates["b"])
            return updates, state

        return gradtx.init_empty_state, update

    look().update(GRADS, gradtx.EmptyState())
    with jax.disable_jit():
        look().update(GRADS, gradtx.EmptyState())
    traced, concrete = (isinstance(x, Tracer) for x in seen)
    assert traced
    assert not concrete


def test_arrays_on_several_devices_keep_their_sharding():
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    rows = NamedSharding(mesh, P("x"))
    params = jax.device_put({"w": jnp.ones((4, 2))}, rows)
    tx = gradtx.adam(1e-3)
    state = tx.init(params)
    assert state[0].mu["w"].sharding.is_equivalent_to(rows, 2)
    updates, state = tx.update(params, state, params)
    assert updates["w"].sharding.is_equivalent_to(rows, 2)
    assert state[0].nu["w"].sharding.is_equivalent_to(rows, 2)


def test_other_types_and_python_numbers_go_through():
    tx = gradtx.trace(0.5)
    state = tx.init({"w": jnp.ones(2, jnp.bfloat16)})
    updates, state = tx.update({"w": jnp.ones(2, jnp.bfloat16)}, state)
    assert updates["w"].dtype == state.trace["w"].dtype == jnp.bfloat16
    assert float(gradtx.scale(-2.0).update(1.5, gradtx.EmptyState())[0]) == -3.0
    tx = gradtx.polyak_sgd()
    assert jnp.isfinite(
        tx.update(GRADS, tx.init(PARAMS), PARAMS, value=2.0)[0]["w"]
    ).all()


def test_errors_name_the_link_and_the_leaf_outside_jit_too():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3))
    with pytest.raises(gradtx.ShapeError, match=r"updates\['b'\]: expected \(2,\)"):
        tx.update(GRADS | {"b": jnp.ones(3)}, tx.init(PARAMS), PARAMS)
    with pytest.raises(gradtx.MissingArgumentError, match="add_decayed_weights"):
        gradtx.adamw(1e-3).update(GRADS, gradtx.adamw(1e-3).init(PARAMS))
