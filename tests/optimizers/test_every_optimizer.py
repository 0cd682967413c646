"""What holds for every optimizer beyond the properties of `gradtx.testing`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.optimizers._forms import EVERY

#: Those that some of these properties do not fit; `test_more_rules` has them.
APART = {
    "noisy_sgd",  # noise moves parameters at a zero gradient
    "polyak_sgd",  # needs a value
    "rprop",  # not for complex parameters
    "sm3",  # not for complex parameters
    "cocob",  # not for complex parameters
    "momo",  # needs a value
    "momo_adam",  # needs a value
    "sophia",  # needs the objective
    "hutchinson_estimator_diag_hessian",  # a link
    "dpsgd",  # needs a gradient per example
    "lbfgs",  # needs the objective
}
every = pytest.mark.parametrize("tx", EVERY, ids=str)


def test_every_optimizer_of_the_room_is_listed():
    named = {name for name, x in vars(gradtx.optimizers).items() if callable(x)}
    links = {name for name in named if name.lower().startswith(("scaleby", "scale_by"))}
    states = {name for name in named if name.endswith(("State", "Numbers"))}
    assert named - links - states == {tx.name for tx in EVERY} | APART


def _links(state):
    return state if gradtx.core.is_chain_state(state) else [state]


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_second_moments_are_real_and_have_32_bits(tx, dtype):
    state = jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct((2, 3), dtype)})
    for link in _links(state):
        for field in {"nu", "nu_max", "sum_of_squares"} & set(link._fields):
            assert getattr(link, field)["w"].dtype == jnp.float32


@pytest.mark.parametrize(
    "tx", [tx for tx in EVERY if "mu_dtype" not in str(tx)], ids=str
)
def test_first_moments_have_the_dtype_of_the_parameters(tx):
    state = jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct((2, 3), jnp.float16)})
    for link in _links(state):
        for field in {"mu", "trace"} & set(link._fields):
            assert getattr(link, field)["w"].dtype == jnp.float16


# schedule-free ones count from 1, as in optax
@pytest.mark.parametrize(
    "tx", [tx for tx in EVERY if "schedule_free" not in tx.name], ids=str
)
def test_counts_are_of_the_updates_made(tx):
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    for made in range(4):
        counts = [x for x in jax.tree.leaves(state) if x.dtype == jnp.int32]
        assert [int(count) for count in counts] == [made] * len(counts)
        assert counts  # the learning rate has one in any case
        _, state = tx.update(params, state, params)


@every
def test_half_precision_is_computed_in_float32(tx):
    params = {"w": jnp.zeros(3)}
    grads = {"w": jnp.array([0.75, -3.0, 1e-3], jnp.bfloat16)}
    exact = {"w": grads["w"].astype(jnp.float32)}
    wide, _ = tx.update(exact, tx.init(params), params)
    half, _ = tx.update(grads, tx.init(params), params)
    assert half["w"].dtype == jnp.bfloat16
    # each of at most three links rounds its own update, by 2^-9 at most
    gap = abs(half["w"].astype(jnp.float32) - wide["w"])
    assert (gap <= 3 * 2**-9 * abs(wide["w"])).all()


@every
def test_none_leaves_pass_and_change_nothing(tx):
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([0.5, -3.0])}
    alone, _ = tx.update(grads, tx.init(params), params)
    grads, params = grads | {"none": None}, params | {"none": None}
    state = tx.init(params)
    updates, after = tx.update(grads, state, params)
    assert updates["none"] is None
    assert updates["w"].tolist() == alone["w"].tolist()
    assert jax.tree.structure(after) == jax.tree.structure(state)


# ADOPT's first update only looks
@pytest.mark.parametrize("tx", [tx for tx in EVERY if tx.name != "adopt"], ids=str)
def test_updates_point_against_the_first_gradient(tx):
    grads = {"w": jnp.array([2.0, -0.5])}
    params = gradtx.tree.zeros_like(grads)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert jnp.sign(updates["w"]).tolist() == [-1.0, 1.0]


BAD_DECAY = r" must lie in \[0, 1\), got "
BAD_SIZE = r" must be 0 or more, got "
ADAMS = [
    gradtx.adam,
    gradtx.adamw,
    gradtx.nadam,
    gradtx.nadamw,
    gradtx.amsgrad,
    gradtx.adamax,
    gradtx.adamaxw,
    gradtx.radam,
]


@pytest.mark.parametrize(
    ("factory", "name", "value", "message"),
    [
        (gradtx.sgd, "momentum", 1.0, "momentum" + BAD_DECAY),
        (gradtx.rmsprop, "momentum", -0.1, "momentum" + BAD_DECAY),
        (gradtx.rmsprop, "decay", 1.5, "decay" + BAD_DECAY),
        (gradtx.rmsprop, "eps", -1e-8, "eps" + BAD_SIZE),
        (gradtx.rmsprop, "initial_scale", -1.0, "initial_scale" + BAD_SIZE),
        (gradtx.rmsprop, "weight_decay", -0.1, "weight_decay" + BAD_SIZE),
        (gradtx.adagrad, "initial_accumulator_value", -1.0, "_value" + BAD_SIZE),
        (gradtx.adagrad, "eps", -1e-8, "eps" + BAD_SIZE),
        (gradtx.lion, "b1", math.nan, "b1" + BAD_DECAY),
        (gradtx.lion, "b2", 1, "b2" + BAD_DECAY),
        *((f, "b1", 1.0, "b1" + BAD_DECAY) for f in ADAMS),
        *((f, "b2", -0.1, "b2" + BAD_DECAY) for f in ADAMS),
        *((f, "eps", -1e-8, "eps" + BAD_SIZE) for f in ADAMS),
        *(
            (f, "eps_root", -1e-8, "eps_root" + BAD_SIZE)
            for f in (gradtx.adam, gradtx.nadamw, gradtx.amsgrad, gradtx.radam)
        ),
        *(
            (f, "weight_decay", -0.1, "weight_decay" + BAD_SIZE)
            for f in (gradtx.adamw, gradtx.nadamw, gradtx.adamaxw, gradtx.lion)
        ),
    ],
)
def test_a_senseless_argument_raises_at_once(factory, name, value, message):
    with pytest.raises(gradtx.ArgumentError, match=f"{message}{value}"):
        factory(0.1, **{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_variance_needs_a_decay_below_one(value):
    with pytest.raises(
        gradtx.ArgumentError, match=f"scale_by_stddev: decay{BAD_DECAY}"
    ):
        gradtx.rmsprop(0.1, decay=value, centered=True)
