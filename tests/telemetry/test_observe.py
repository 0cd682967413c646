"""Observing changes no bit of an update, and finds what is not finite."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState
from jax.extend.core import jaxprs_in_params

import gradtx
from benchmarks._program import parse
from benchmarks._traffic import kernels, traffic
from gradtx import telemetry
from gradtx.testing import Subject, catalogue
from tests.telemetry import _truth
from tests.telemetry._truth import Truth, assert_tells, leaves_of

#: A wrapper, a chain, groups, states of every shape, and every extra argument.
QUICK = [
    "accumulate",
    "adafactor",
    "chain",
    "dpsgd",
    "lbfgs",
    "lookahead",
    "masked",
    "momo",
    "muon",
    "partition",
    "schedule_free",
    "sm3",
    "sophia",
]
REST = sorted(set(catalogue()) - {*QUICK, "sam"})


#: XLA fuses their sums and products in another way around what observes them.
ROUNDED = {
    "dog",
    "dowg",
    "observe",
    "optimistic_gradient_descent",
    "scale_by_dog",
    "scale_by_dowg",
}


def same_bits(a: Any, b: Any, ulps: int = 0) -> None:
    """Compare all leaves of two trees bit by bit, or but for the last bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = map(jax.random.key_data, (x, y))
        if ulps and x.dtype == jnp.float32:
            np.testing.assert_array_max_ulp(np.asarray(x), np.asarray(y), ulps)
        else:
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def check_same(name, **given):
    plain = Subject(catalogue()[name])
    seen = plain.with_tx(gradtx.observe(plain.tx, **given))
    params, grads = plain.params(), [plain.grads(seed=i) for i in range(4)]
    grads[2] = jax.tree.map(lambda g: 100 * g, grads[2])  # to be clipped
    state, observed = plain.init(params), seen.init(params)
    now, then, ulps = params, params, 2 if name in ROUNDED else 0
    for g in grads:
        now, state, made = plain.step(now, state, g)
        then, observed, equal = seen.step(then, observed, g)
        same_bits(made, equal, ulps)
        same_bits(state, observed.inner_state, ulps)
        same_bits(now, then, ulps)
    found = telemetry.read(observed)
    assert found["updates"] == 4
    assert found["measured_update"] == 4
    assert list(found) == telemetry.names(seen.tx, params)


@pytest.mark.parametrize("name", QUICK)
def test_updates_and_states_keep_every_bit(name):
    check_same(name, every=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_updates_and_states_of_all_others_keep_every_bit(name):
    check_same(name, every=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_measuring_everything_keeps_every_bit(name):
    everything = {"per_leaf": True, "histograms": True, "successive": True}
    check_same(name, every=2, groups=gradtx.ndim_at_least(2), **everything)


# What is not finite


LAYERS = [{"b": jnp.ones(2), "w": jnp.ones((2, 3))} for _ in range(12)]
GUARDED = gradtx.observe(
    gradtx.apply_if_finite(gradtx.sgd(0.1, momentum=0.9), 100),
    every=100,
    per_leaf=True,
    groups=gradtx.label_paths({"/b$": "bias"}, default="weight"),
)
guarded = jax.jit(GUARDED.update)


def test_nan_is_counted_at_once_with_the_first_path_of_the_tree():
    grads = {"layers": LAYERS}
    state = GUARDED.init(grads)
    for _ in range(3):
        _, state = guarded(grads, state, grads)
    assert telemetry.read(state)["measured_update"] == 1
    bad = jax.tree.map(lambda g: g, grads)
    bad["layers"][10]["b"] = jnp.array([jnp.nan, -jnp.inf])
    bad["layers"][2]["w"] = bad["layers"][2]["w"].at[1, 2].set(jnp.inf)
    _, state = guarded(bad, state, grads)
    found = telemetry.read(state)
    assert list(found) == telemetry.names(GUARDED, grads)
    assert found["measured_update"] == found["updates"] == 4
    assert found["first_nonfinite"] == "layers/2/w"  # "layers/10" sorts before
    assert found["gradient_nonfinite"] == 3
    assert found["gradient_nonfinite/group/bias"] == 2
    assert found["gradient_nonfinite/group/weight"] == 1
    assert found["gradient_nonfinite/leaf/layers/10/b"] == 2
    assert found["gradient_nonfinite/leaf/layers/2/w"] == 1
    assert sum(v for k, v in found.items() if "gradient_nonfinite/leaf" in k) == 3
    assert found["update_nonfinite"] == found["param_nonfinite"] == 0
    assert found["nonfinite_updates"] == found["skipped_updates"] == 1
    assert np.isnan(found["gradient_norm"])
    # what the others were is told all the same
    np.testing.assert_allclose(found["gradient_norm/leaf/layers/3/b"], 2**0.5, 1e-6)
    assert found["gradient_norm_mean"] == pytest.approx(96**0.5, rel=1e-6)
    # and afterwards all is as before
    _, state = guarded(grads, state, grads)
    found = telemetry.read(state)
    assert found["measured_update"] == 4
    assert found["gradient_norm"] == pytest.approx(96**0.5, rel=1e-6)
    assert found["nonfinite_updates"] == 1
    assert found["gradient_norm_variance"] < 1e-9


@pytest.mark.parametrize("every", [1, 3])
def test_what_overflows_in_an_update_or_a_parameter_is_found(every):
    tx = gradtx.observe(gradtx.scale(3e38), every=every, per_leaf=True)
    grads = {"a": jnp.array([0.5, 1.0]), "b": jnp.array([2.0, 1.0, -3.0])}
    params = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.ones(3)}
    found = telemetry.read(tx.update(grads, tx.init(params), params)[1])
    assert found["gradient_nonfinite"] == 0
    assert found["update_nonfinite"] == found["update_nonfinite/leaf/b"] == 2
    assert found["param_nonfinite"] == found["param_nonfinite/leaf/a"] == 1
    assert found["first_nonfinite"] == "a"
    assert found["nonfinite_updates"] == 0
    assert np.isposinf(found["update_norm"])
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    found = telemetry.read(tx.update(grads, tx.init(params), params)[1])
    assert found["first_nonfinite"] == "b"


def test_no_state_of_a_healthy_run_holds_a_nan():
    tx = gradtx.observe(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9)),
        every=2,
        successive=True,
        groups={"a": "x", "b": "y", "empty": "z"},
    )
    params = {"a": jnp.zeros(2), "b": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    with jax.debug_nans(True), jax.debug_infs(True):
        state, update = tx.init(params), jax.jit(tx.update)
        for i in range(5):
            grads = jax.tree.map(lambda p, i=i: p * (i % 3), params)  # zeros too
            _, state = update(grads, state, params)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert telemetry.read(state)["first_nonfinite"] == ""


# What it costs between measurements


SIZES = {"a": (256, 128), "b": (128,), "c": (128, 96), "d": (96, 96)}
ADAMW = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
EVERYTHING = {
    "per_leaf": True,
    "histograms": True,
    "successive": True,
    "groups": gradtx.ndim_at_least(2),
}


@functools.cache
def compiled(everything: bool | None):
    """Return a donated step, not observed for `None`, and how many elements it has."""
    given: Any = EVERYTHING if everything else {}
    tx = ADAMW if everything is None else gradtx.observe(ADAMW, every=1000, **given)
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SIZES.items()}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, jax.eval_shape(tx.init, params), params
    )
    elements = sum(int(np.prod(s)) for s in SIZES.values())
    return lowered.compile(), elements


def _copies(program):
    """Return how many arrays as long as the shortest leaf are copied."""
    found = kernels(parse(program.as_text()))
    return sum(k.opcode == "copy" and k.largest >= 128 for k in found)


@pytest.mark.parametrize("everything", [False, True])
def test_between_measurements_a_donated_step_moves_no_more_bytes(everything):
    plain, elements = compiled(None)
    seen, _ = compiled(everything)
    before, after = traffic(plain, elements), traffic(seen, elements)
    assert after.bytes <= 1.01 * before.bytes
    assert _copies(seen) == _copies(plain)


def _sums(jaxpr) -> int:
    """Return how many sums over leaves every update takes; branches are left out."""
    found = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "reduce_sum":
            found += eqn.invars[0].aval.size >= 128
        elif eqn.primitive.name != "cond":
            found += sum(map(_sums, jaxprs_in_params(eqn.params)))
    return found


@pytest.mark.parametrize("link", [ADAMW, gradtx.adamw(1e-3)])
def test_the_norm_that_a_link_keeps_is_taken_once(link):
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SIZES.items()}
    tx = gradtx.observe(link, every=1000)
    state = jax.eval_shape(tx.init, params)
    traced = jax.make_jaxpr(tx.update)(params, state, params)
    assert _sums(traced.jaxpr) == len(SIZES)


# Where it stands


PARAMS = {"a": {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}, "b": jnp.array([3.0, -4.0])}
GRADS = {"a": {"w": jnp.full((2, 3), 0.5)}, "b": jnp.array([1.0, -2.0])}
SHORT: Any = {"moments": False, "effective": False}


def after(tx, params=PARAMS, grads=GRADS, steps=2, update: Any = None):
    """Return what is read after some updates; checks the names beforehand."""
    state, update = tx.init(params), update or jax.jit(tx.update)
    for _ in range(steps):
        _, state = update(grads, state, params)
    found = telemetry.read(state)
    assert list(found) == telemetry.names(tx, params)
    return found


def test_rows_of_lookahead_are_those_of_its_fast_parameters():
    tx = gradtx.observe(
        gradtx.lookahead(gradtx.sgd(0.5, momentum=0.9), 5, 0.5),
        every=1,
        per_leaf=True,
        successive=True,
    )
    pairs = gradtx.LookaheadParams.init_synced(PARAMS)
    found, truth = after(tx, pairs), Truth(1, per_leaf=True, successive=True)
    moment = GRADS
    for i in range(2):
        moment = GRADS if i == 0 else jax.tree.map(lambda g: 1.9 * g, GRADS)
        updates = jax.tree.map(lambda m: -0.5 * m, moment)
        path = "inner_state.fast_state.trace.trace"
        truth.see(GRADS, updates, PARAMS, {path: moment})
    expected = truth.read() | {"learning_rate": 0.5}
    path = next(k for k in found if k.startswith("moment_norm"))
    path = telemetry.parse(path).field
    expected = {
        k.replace("inner_state.fast_state.trace.trace", path): v
        for k, v in expected.items()
    }
    assert_tells(found, expected, _truth.norm(leaves_of(GRADS).values()) ** 2)


def test_learning_rate_follows_a_schedule():
    tx = gradtx.observe(
        gradtx.sgd(gradtx.piecewise_constant_schedule(0.5, {1: 0.5, 4: 0.4})), **SHORT
    )
    assert after(tx, steps=1)["learning_rate"] == 0.5
    assert after(tx, steps=2)["learning_rate"] == 0.25
    assert after(tx, steps=5)["learning_rate"] == np.float32(0.1)


def test_several_learning_rates_go_by_the_field_that_holds_them():
    rates = {True: gradtx.sgd(0.5), False: gradtx.adam(gradtx.constant_schedule(0.25))}
    tx = gradtx.observe(gradtx.partition(rates, gradtx.ndim_at_least(2)))
    found = after(tx, steps=1)
    told = {k: v for k, v in found.items() if k.startswith("learning_rate")}
    assert sorted(told.values()) == [0.25, 0.5]
    fields = [telemetry.parse(k).field for k in told]
    assert all("True" in f or "False" in f for f in fields)


def test_several_observers_go_by_their_field():
    seen = lambda tx: gradtx.observe(tx, every=1, per_leaf=True, **SHORT)
    tx = gradtx.partition(
        {True: seen(gradtx.sgd(0.5)), False: seen(gradtx.sgd(0.25))},
        gradtx.ndim_at_least(2),
    )
    found = after(tx)
    norms = {k: v for k, v in found.items() if k.startswith("gradient_norm/")}
    alone = {k: v for k, v in norms.items() if "/leaf/" not in k}
    assert sorted(alone.values()) == pytest.approx([1.5**0.5, 5**0.5], rel=1e-6)
    assert len({telemetry.parse(k).field for k in norms}) == 2
    assert {telemetry.parse(k).leaf for k in norms} == {"", "a/w", "b"}


def test_observers_of_parts_and_of_the_whole_are_told_apart():
    inside = gradtx.observe(gradtx.trace(0.9), every=1, **SHORT)
    tx = gradtx.observe(gradtx.chain(inside, gradtx.scale(-0.5)), every=1, **SHORT)
    found = after(tx, steps=1)
    norms = {k: v for k, v in found.items() if k.startswith("update_norm")}
    assert len(norms) == 2
    whole = 0.5 * 6.5**0.5
    assert sorted(norms.values()) == pytest.approx([whole, 2 * whole], rel=1e-6)


def test_flax_train_state():
    tx: Any = gradtx.observe(gradtx.adam(0.1), every=1)
    state: Any = TrainState.create(apply_fn=lambda: None, params=PARAMS, tx=tx)
    state = state.apply_gradients(grads=GRADS)
    found = telemetry.read(state)
    assert list(found) == telemetry.names(tx, PARAMS)
    assert found["gradient_norm"] == pytest.approx(6.5**0.5, rel=1e-6)
    assert found["updates"] == 1
    assert gradtx.learning_rate(state) == gradtx.learning_rate(state.opt_state)
    assert float(gradtx.learning_rate(state)) == pytest.approx(0.1)


def test_flax_nnx_optimizer(lenient):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx: Any = gradtx.observe(gradtx.adam(0.1), every=1, per_leaf=True)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 3))).sum())(model))

    step(model, optimizer)
    found = telemetry.read(optimizer)
    assert found == telemetry.read(optimizer.opt_state)
    for host in (optimizer, optimizer.opt_state):
        rate = gradtx.learning_rate(host)
        assert isinstance(rate, jax.Array)
        assert float(rate) == pytest.approx(0.1)
    assert list(found) == telemetry.names(tx, nnx.state(model, nnx.Param))
    assert found["gradient_norm"] == pytest.approx(8**0.5, rel=1e-6)
    assert found["gradient_norm/leaf/kernel"] == pytest.approx(6**0.5, rel=1e-6)
    assert found["moment_norm/field/scale_by_adam.mu/leaf/bias"] == pytest.approx(
        0.1 * 2**0.5, rel=1e-6
    )


def test_in_a_chain_of_optax(lenient):
    first: Any = gradtx.observe(gradtx.sgd(0.5), every=1)
    tx = optax.chain(first, optax.scale(2.0))
    found = after(tx)
    assert found["update_norm"] == pytest.approx(0.5 * 6.5**0.5, rel=1e-6)
    assert found["updates"] == 2


def test_moments_of_optax_are_known_by_their_structure(lenient):
    tx = gradtx.observe(optax.adam(0.5), every=1, per_leaf=True)
    found = after(tx, steps=1)
    moments = {
        telemetry.parse(k).field: v
        for k, v in found.items()
        if k.startswith("moment_norm") and "leaf" not in k
    }
    mu, nu = (
        next(v for k, v in moments.items() if k.endswith(x)) for x in ("mu", "nu")
    )
    assert len(moments) == 2
    assert mu == pytest.approx(0.1 * 6.5**0.5, rel=1e-6)
    squares = _truth.norm(leaves_of(jax.tree.map(lambda g: g * g, GRADS)).values())
    assert nu == pytest.approx(0.001 * squares, rel=1e-5)


def test_accumulated_updates_are_observed_inside_and_micro_batches_outside():
    inside = gradtx.observe(gradtx.sgd(0.5), every=1, **SHORT)
    inside = gradtx.accumulate(inside, every=2)
    found = after(inside, steps=4)
    assert found["updates"] == 2
    assert found["gradient_norm"] == pytest.approx(6.5**0.5, rel=1e-6)
    outside = gradtx.accumulate(gradtx.sgd(0.5), every=2)
    outside = gradtx.observe(outside, every=1, **SHORT)
    found = after(outside, steps=4)
    assert found["updates"] == 4
    assert found["update_norm"] == pytest.approx(0.5 * 6.5**0.5, rel=1e-6)
    assert after(outside, steps=3)["update_norm"] == 0


def test_packed_parameters_have_the_rows_of_plain_ones():
    tx = gradtx.observe(
        gradtx.sgd(0.1, momentum=0.9),
        every=1,
        per_leaf=True,
        groups=gradtx.ndim_at_least(2),
    )
    plain = after(tx)
    packed = after(tx, gradtx.pack(PARAMS), gradtx.pack(GRADS))
    assert list(packed) == list(plain)
    for name, value in plain.items():
        if isinstance(value, str):
            assert packed[name] == value
        else:  # sums in another order, and an update fused with others
            np.testing.assert_allclose(packed[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "mixed"])
def test_leaves_of_every_dtype_are_measured_in_float32(dtype):
    kinds = {"mixed": ("bfloat16", "float32")}.get(dtype, (dtype, dtype))
    turn = 1 + 1j if dtype == "complex64" else 1
    cast = lambda tree: {
        "a": {"w": (tree["a"]["w"] * turn).astype(kinds[0])},
        "b": tree["b"].astype(kinds[1]),
    }
    with jax.numpy_dtype_promotion("standard"):
        params, grads = cast(PARAMS), cast(GRADS)
    tx = gradtx.observe(gradtx.trace(0.5), every=1, per_leaf=True, successive=True)
    update = jax.jit(tx.update)
    state, truth = tx.init(params), Truth(1, per_leaf=True, successive=True)
    for _ in range(2):
        updates, state = update(grads, state, params)
        truth.see(
            grads, updates, params, {"inner_state.trace": state.inner_state.trace}
        )
    path = telemetry.parse(
        next(k for k in telemetry.read(state) if k.startswith("moment"))
    ).field
    expected = {
        k.replace("inner_state.trace", path): v for k, v in truth.read().items()
    }
    size = _truth.norm(leaves_of(grads).values()) ** 2
    assert_tells(telemetry.read(state), expected, size)
    assert all(
        x.dtype in (jnp.float32, jnp.int32)
        for x in jax.tree.leaves((state.latest, state.measured, state.window))
    )


def test_float64_leaves_beyond_float32_are_bounded(x64):
    tx = gradtx.observe(gradtx.scale(0.5), every=1, per_leaf=True)
    params = {"a": jnp.full(2, 1e200), "b": jnp.ones(2, jnp.float32)}
    found = after(tx, params, params, steps=1)
    largest = float(np.finfo(np.float32).max)
    assert found["gradient_norm"] == found["gradient_norm/leaf/a"] == largest
    assert found["gradient_norm/leaf/b"] == pytest.approx(2**0.5, rel=1e-6)
    assert found["gradient_nonfinite"] == found["nonfinite_updates"] == 0
    assert found["effective_learning_rate/leaf/b"] == 0.5


def test_integer_none_and_empty_leaves_have_no_rows():
    zeros = np.zeros((2,), jax.dtypes.float0)
    params = {
        "n": jnp.arange(2),
        "none": None,
        "w": jnp.ones(3),
        "z": jnp.zeros((0, 2)),
    }
    grads = params | {"n": zeros, "w": jnp.full(3, 2.0)}
    tx = gradtx.observe(
        gradtx.sgd(0.5, momentum=0.9), every=1, per_leaf=True, histograms=True,
        successive=True, groups=lambda p: jax.tree.map(lambda x: "g", p),
    )  # fmt: skip
    update = jax.jit(lambda _, state, params: tx.update(grads, state, params))
    found = after(tx, params, None, steps=1, update=update)
    leaves = {telemetry.parse(k).leaf for k in found}
    assert leaves == {"", "w", "z"}
    assert found["gradient_norm"] == pytest.approx(12**0.5, rel=1e-6)
    assert found["gradient_norm/leaf/z"] == 0
    assert np.isnan(found["effective_learning_rate/leaf/z"])
    assert found["param_histogram"].counts.sum() == 3


@pytest.mark.parametrize("params", [{}, {"n": None}, jnp.float32(3.0)])
@pytest.mark.parametrize("every", [1, 2])
def test_empty_trees_and_single_numbers(params, every):
    tx = gradtx.observe(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.5, momentum=0.9)),
        every=every, per_leaf=True, histograms=True, successive=True,
        groups=gradtx.ndim_at_least(2),
    )  # fmt: skip
    found = after(tx, params, params, steps=3)
    norm = 3.0 if jax.tree.leaves(params) else 0.0
    assert found["gradient_norm"] == norm
    assert found["param_norm"] == norm
    assert found["first_nonfinite"] == ""
    if norm:
        assert found["gradient_norm/leaf/params"] == 3
        assert found["gradient_cosine"] == 1


def test_a_state_survives_flax_serialization_and_a_description():
    tx = gradtx.observe(
        gradtx.adam(0.1), every=2, successive=True, groups=gradtx.ndim_at_least(2)
    )
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = tx.update(GRADS, state, PARAMS)
    stored = serialization.to_bytes(state)
    again = serialization.from_bytes(tx.init(PARAMS), stored)
    same_bits(jax.tree.map(jnp.asarray, again), state)
    assert str(telemetry.read(again)) == str(telemetry.read(state))
    text = json.dumps(gradtx.describe(tx))
    assert gradtx.build(json.loads(text)) == tx


def test_a_state_can_be_donated_and_carried_by_a_scan():
    tx = gradtx.observe(gradtx.adam(0.1), every=2, successive=True, per_leaf=True)
    state = jax.jit(tx.init)(PARAMS)
    kinds = jax.tree.map(jax.typeof, state)
    update = jax.jit(lambda g, s: tx.update(g, s, PARAMS)[1], donate_argnums=1)
    new = update(GRADS, state)
    # all that an update reads, the last gradients among it
    read = (state.previous, state.inner_state.scale_by_adam, state.window)
    assert all(x.is_deleted() for x in jax.tree.leaves(read))
    assert jax.tree.map(jax.typeof, new) == kinds
    assert not any(x.weak_type for x in jax.tree.leaves(new))


def test_what_is_measured_has_no_derivative():
    def loss(rate, observed):
        tx = gradtx.sgd(rate, momentum=0.9)
        tx = gradtx.observe(tx, every=2, successive=True) if observed else tx
        params, state = jnp.array([1.0, 2.0]), tx.init(jnp.ones(2))
        for _ in range(3):
            updates, state = tx.update(params**3, state, params)
            params = gradtx.apply_updates(params, updates)
        return jnp.sum(params**2)

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    np.testing.assert_allclose(slope(0.01, True), slope(0.01, False), rtol=1e-6)


def test_arguments_that_are_wrong_are_refused():
    wrong: Any = ({"every": 0}, {"window": 0}, {"every": 1.5})
    for given in wrong:
        with pytest.raises(gradtx.ArgumentError, match="observe"):
            gradtx.observe(gradtx.sgd(0.1), **given)
    with pytest.raises(gradtx.ArgumentError, match="give one of them"):
        gradtx.observe(gradtx.sgd(0.1), replicas="data", successive=True)
    tx = gradtx.observe(gradtx.sgd(0.1), groups={"a": None})
    with pytest.raises(gradtx.ArgumentError, match="groups"):
        tx.init(PARAMS)
    tx = gradtx.observe(gradtx.sgd(0.1), groups={"a": "", "b": "x"})
    with pytest.raises(gradtx.ArgumentError, match="label every leaf"):
        tx.init(PARAMS)


# What the host says


def _branches(jaxpr):
    found = sum(eqn.primitive.name == "cond" for eqn in jaxpr.eqns)
    inner = [x for eqn in jaxpr.eqns for x in jaxprs_in_params(eqn.params)]
    return found + sum(map(_branches, inner))


def test_a_program_told_not_to_measure_has_no_branch_and_leaves_what_was_measured():
    tx = gradtx.observe(ADAMW, every=2)
    quiet = functools.partial(tx.update, measure=False)
    state = tx.init(PARAMS)
    count = lambda update, *args: _branches(jax.make_jaxpr(update)(*args).jaxpr)
    alone = count(ADAMW.update, GRADS, state.inner_state, PARAMS)
    assert count(tx.update, GRADS, state, PARAMS) > alone
    assert count(quiet, GRADS, state, PARAMS) == alone
    step = jax.jit(quiet)
    _, state = tx.update(GRADS, state, PARAMS)
    before = state.measured
    _, state = step(GRADS, state, PARAMS)
    updates, state = step(GRADS, state, PARAMS)
    same_bits(before, state.measured)
    expected, _ = tx.update(GRADS, state, PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(expected)
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    found = telemetry.read(step(bad, state, PARAMS)[1])
    assert found["updates"] == 4
    assert found["measured_update"] == 1
    assert found["nonfinite_updates"] == 1
    assert found["gradient_nonfinite"] == 0


@pytest.mark.parametrize("traced", [False, True])
def test_a_program_told_to_measure_finds_what_every_finds(traced):
    tx = gradtx.observe(ADAMW, every=3, per_leaf=True, histograms=True)
    told = jnp.array(True) if traced else np.True_
    rule, asked = (
        jax.jit(tx.update),
        jax.jit(functools.partial(tx.update, measure=told)),
    )
    quiet = jax.jit(functools.partial(tx.update, measure=~told))
    one = two = tx.init(PARAMS)
    for number in range(1, 4):
        _, one = rule(GRADS, one, PARAMS)
        _, two = (asked if number in (1, 3) else quiet)(GRADS, two, PARAMS)
    found, other = telemetry.read(one), telemetry.read(two)
    assert found["measured_update"] == other["measured_update"] == 3
    assert found.keys() == other.keys()
    for name, value in found.items():
        if isinstance(value, telemetry.Histogram):
            np.testing.assert_array_equal(value.counts, other[name].counts)
        elif not isinstance(value, str):
            assert other[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("measure", [1, "yes", np.zeros(2, bool), np.float32(1)])
def test_what_says_neither_yes_nor_no_is_refused(measure):
    tx = gradtx.observe(gradtx.sgd(0.1))
    with pytest.raises(gradtx.ArgumentError, match="measure must be"):
        jax.jit(functools.partial(tx.update, measure=measure))(GRADS, tx.init(PARAMS))


# Which leaf is the first


@pytest.mark.parametrize(
    ("grads", "params", "first"),
    [
        ({"a": 1.0, "b": np.nan, "c": np.inf}, {"a": 1.0, "b": 1.0, "c": 1.0}, "b"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": np.nan}, "c"),
        ({"a": 1.0, "b": 1.0, "c": np.nan}, {"a": 1.0, "b": np.inf, "c": 1.0}, "c"),
    ],
)
def test_the_first_leaf_is_where_it_began_not_where_it_went(grads, params, first):
    # clipping by the norm of all makes each update NaN
    spread = gradtx.clip_by_global_norm(1.0)
    tx = gradtx.observe(gradtx.chain(spread, gradtx.adamw(0.1)), every=7)
    arrays = lambda tree: {k: jnp.full(3, x) for k, x in tree.items()}
    grads, params = arrays(grads), arrays(params)
    state = tx.init(jax.tree.map(jnp.ones_like, params))
    found = telemetry.read(jax.jit(tx.update)(grads, state, params)[1])
    assert found["first_nonfinite"] == first


def test_a_tree_that_can_be_called_is_measured():
    @jax.tree_util.register_pytree_node_class
    class Weights(dict):
        def tree_flatten(self):
            return tuple(self.values()), tuple(self)

        @classmethod
        def tree_unflatten(cls, names, values):
            return cls(zip(names, values, strict=True))

        def __call__(self, x):
            return x

    weights = Weights({f"w{i}": jnp.full((2, 2), 3.0) for i in range(9)})
    tx = gradtx.observe(gradtx.adam(0.1), every=2)
    _, state = jax.jit(tx.update)(weights, tx.init(weights), weights)
    assert telemetry.read(state)["param_norm"] == pytest.approx(18.0)
