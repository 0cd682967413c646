"""What holds for every optimizer: dtypes, fixed points, large and zero gradients."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.optimizers import _cases

EVERY = [
    gradtx.sgd(0.125),
    gradtx.sgd(0.125, 0.9, nesterov=True),
    gradtx.rmsprop(0.125),
    gradtx.rmsprop(0.125, eps_in_sqrt=False, momentum=0.9, bias_correction=True),
    gradtx.rmsprop(0.125, centered=True, momentum=0.9, momentum_after="scaling"),
    gradtx.rmsprop(0.125, centered=True, bias_correction=True, weight_decay=0.1),
    gradtx.adam(0.125),
    gradtx.adam(0.125, mu_dtype="bfloat16"),
    gradtx.adamw(_cases.falling, weight_decay=_cases.rising),
    gradtx.nadam(0.125),
    gradtx.nadamw(0.125),
    gradtx.amsgrad(0.125),
    gradtx.adamax(0.125),
    gradtx.adamaxw(0.125),
    gradtx.adagrad(0.125),
    gradtx.adagrad(0.125, 0.0, eps_in_sqrt=False),
    gradtx.radam(0.125),
    gradtx.radam(0.125, b2=0.5, nesterov=True),
    gradtx.lion(0.125),
    gradtx.acprop(0.125),
    gradtx.adabelief(0.125),
    gradtx.adadelta(),
    gradtx.adafactor(0.125),
    gradtx.adafactor(0.125, 1, momentum=0.9, weight_decay_rate=0.1),
    gradtx.adan(0.125),
    gradtx.ademamix(0.125),
    gradtx.adopt(0.125),
    gradtx.fromage(0.125),
    gradtx.lamb(0.125),
    gradtx.lars(0.125),
    gradtx.novograd(0.125),
    gradtx.optimistic_adam(0.125),
    gradtx.optimistic_adam_v2(0.125),
    gradtx.optimistic_gradient_descent(0.125),
    gradtx.sign_sgd(0.125),
    gradtx.signum(0.125),
    gradtx.simplified_ademamix(0.125),
    gradtx.yogi(0.125),
    gradtx.dadapt_adamw(),
    gradtx.dog(),
    gradtx.dowg(),
    gradtx.madgrad(0.125),
    gradtx.prodigy(),
    gradtx.schedule_free_adamw(0.125),
    gradtx.schedule_free_sgd(0.125),
    gradtx.galore(0.125, rank=1),
    gradtx.muon(0.125),
]
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

DTYPES = [
    ("float16", "float16"),
    ("bfloat16", "bfloat16"),
    ("float32", "float32"),
    ("complex64", "complex64"),
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
    ("float16", "bfloat16"),
]


def test_every_optimizer_of_the_room_is_listed():
    named = {name for name, x in vars(gradtx.optimizers).items() if callable(x)}
    links = {name for name in named if name.lower().startswith(("scaleby", "scale_by"))}
    states = {name for name in named if name.endswith(("State", "Numbers"))}
    assert named - links - states == {tx.name for tx in EVERY} | APART


@every
@pytest.mark.parametrize(("params", "grads"), DTYPES)
def test_states_never_change_their_type(tx, params, grads):
    check_fixed_point(tx, params, grads)


@every
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("params", "grads"), [*DTYPES, ("float64", "float64")])
def test_states_never_change_their_type_in_64_bits(tx, params, grads):
    check_fixed_point(tx, params, grads)


@pytest.mark.usefixtures("x64")
def test_states_of_complex128_parameters_never_change_their_type():
    check_fixed_point(gradtx.adam(0.125), "complex128", "complex128")


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


# Yogi's first moment starts at 1e-6, as in other libraries
@pytest.mark.parametrize("tx", [tx for tx in EVERY if tx.name != "yogi"], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_zero_gradient_keeps_params(tx, dtype):
    # parameters at 0, for those that decay
    params = {"w": jnp.zeros(2, dtype), "empty": jnp.zeros((0, 3), dtype)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        assert updates["w"].tolist() == [0.0, 0.0]
        assert updates["empty"].shape == (0, 3)


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
@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 1e20), ("float16", 300.0), ("float16", 6e4)]
)
def test_one_huge_gradient_leaves_everything_finite(tx, dtype, size):
    params = {"w": jnp.ones(3, dtype)}
    state = tx.init(params)
    for scale in (1.0, size, 1.0, 0.0):
        grads = {"w": jnp.array([scale, -scale, 0.5], dtype)}
        updates, state = tx.update(grads, state, params)
        for leaf in jax.tree.leaves((updates, state)):
            assert jnp.isfinite(leaf).all()


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


def check_fixed_point(tx, params_dtype, grads_dtype):
    """Assert that an update returns states of the types that it was given."""
    params = {
        "w": jax.ShapeDtypeStruct((2, 3), params_dtype),
        "scalar": jax.ShapeDtypeStruct((), params_dtype),
    }
    grads = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, grads_dtype), params)
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, grads, state, params)
    assert types(after) == types(state)
    assert types(updates) == types(grads)
    assert not any(weak for *_, weak in types((state, updates)))


def types(tree):
    """Return what a compiled function depends on: shape, dtype, weakness by leaf."""
    return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
