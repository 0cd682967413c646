"""Hyperparameters in the state: there, float32, replaceable, and the same numbers."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.testing

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.ones(2)}


def _grads(seed=0, steps=200):
    rng = np.random.default_rng(seed)
    draw = lambda p: jnp.asarray(rng.normal(size=(steps, *p.shape)), p.dtype)
    return jax.tree.map(draw, PARAMS)


def _path(tx, params: Any, grads, **extra):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params, **extra)
        return (gradtx.apply_updates(params, updates), state), params

    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), grads))()


def _types(tree):
    return jax.tree.map(jax.typeof, tree)


def test_trajectory_equals_optax(x64, lenient):
    schedule = lambda t: 0.1 / (1 + t)
    double = jax.tree.map(lambda p: p.astype(jnp.float64), (PARAMS, _grads()))

    def path(lib):
        factory = lib.inject_hyperparams(lib.adamw)
        return _path(factory(schedule, b2=0.95, weight_decay=0.01), *double)

    (_, ours), moved = path(gradtx)
    (_, theirs), expected = path(optax)
    # the same float64 numbers in the same operations; decay**t in two forms
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert ours._fields == theirs._fields
    assert set(ours.hyperparams) <= set(theirs.hyperparams)
    for name, value in ours.hyperparams.items():
        np.testing.assert_allclose(value, theirs.hyperparams[name], rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, tx in gradtx.testing.catalogue().items()
        if tx.traits.form == "gradients" and name != "pmean_gradients"
    ],
)
def test_every_factory_can_be_injected(name):
    plain = gradtx.testing.catalogue()[name]
    call = plain.call
    bound = inspect.BoundArguments(
        inspect.signature(call.factory),
        dict(call.arguments),
    )
    tx = gradtx.inject_hyperparams(call.factory)(*bound.args, **bound.kwargs)
    state = tx.init(PARAMS)
    g = jax.tree.map(lambda x: x[0], _grads())
    subject = gradtx.testing.Subject(tx)
    updates, after = jax.jit(subject.update)(g, state, PARAMS)
    assert _types(after) == _types(state)
    subject = gradtx.testing.Subject(plain)
    expected, _ = jax.jit(subject.update)(g, plain.init(PARAMS), PARAMS)
    # hyperparameters are float32 here and Python's there
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)
    numbers = {k for k, v in call.arguments.items() if isinstance(v, float)}
    # offsets are numbers too, though their default is an integer
    numbers |= {"decay_offset", "step_offset"} & set(call.arguments)
    looked_at = {"weight_decay"} if name == "rmsprop" else set()
    assert set(state.hyperparams) == numbers - looked_at


def test_numbers_that_a_factory_branches_on_stay_what_they_are():
    def make(rate, wd):
        return gradtx.chain(
            *([gradtx.add_decayed_weights(wd)] if wd else []), gradtx.sgd(rate)
        )

    for rate in (0.1, gradtx.constant_schedule(0.1)):
        tx = gradtx.inject_hyperparams(make)(rate, 0.5)
        state = jax.jit(tx.init)(PARAMS)
        assert set(state.hyperparams) == {"rate"}
        updates, _ = jax.jit(tx.update)(PARAMS, state, PARAMS)
        np.testing.assert_allclose(updates["b"], -0.15, rtol=1e-6)  # float32


@pytest.mark.parametrize(
    "make",
    [
        lambda inject: inject(optax.adafactor)(1e-3),
        lambda inject: inject(optax.contrib.adopt)(1e-3),
        lambda inject: inject(optax.contrib.galore)(1e-3, rank=1),
        lambda inject: inject(optax.contrib.reduce_on_plateau)(factor=0.5),
        lambda inject: inject(optax.scale_by_lbfgs)(),
        lambda inject: inject(optax.adamw)(
            1e-3, mask=lambda p: jax.tree.map(lambda x: True, p)
        ),
        lambda inject: inject(optax.adamw)(1e-3, mu_dtype=jnp.bfloat16),
    ],
)
def test_factories_with_functions_sizes_and_dtypes(make, lenient):
    tx = make(gradtx.inject_hyperparams)
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(2)}
    tx.init(params)
    jax.jit(tx.update)(params, tx.init(params), params, value=jnp.array(1.0))


def test_linesearch_optimizers_can_be_injected(lenient):
    tx = gradtx.inject_hyperparams(optax.lbfgs)(memory_size=3)
    fn = lambda x: jnp.sum(x**2)
    x = jnp.ones(3)
    state = tx.init(x)
    value, g = jax.value_and_grad(fn)(x)
    updates, _ = tx.update(g, state, x, value=value, grad=g, value_fn=fn)
    assert fn(x + updates) < value


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hyperparameters_of_half_precision_are_float32(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    tx = gradtx.inject_hyperparams(gradtx.adam)(1e-3)
    state = tx.init(params)
    updates, after = tx.update(params, state, params)
    for s in (state, after):
        assert {x.dtype.name for x in s.hyperparams.values()} == {"float32"}
    np.testing.assert_allclose(after.hyperparams["b2"], 0.999, rtol=1e-7)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))


def test_dtype_can_be_asked_for_and_arrays_keep_their_own():
    inject = gradtx.inject_hyperparams
    tx = inject(gradtx.sgd, hyperparam_dtype=jnp.bfloat16)(0.1)
    state = tx.init(PARAMS)
    _, after = tx.update(PARAMS, state, PARAMS)
    assert after.hyperparams["learning_rate"].dtype == jnp.bfloat16
    tx = inject(gradtx.sgd)(jnp.array(0.5, jnp.float16))
    assert tx.init(PARAMS).hyperparams["learning_rate"].dtype == jnp.float16


def test_double_parameters_have_double_hyperparameters(x64):
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    wide = tx.init(jnp.ones(2, jnp.float64)).hyperparams["learning_rate"]
    assert wide.item() == 0.1
    assert tx.init(jnp.ones(2, jnp.float32)).hyperparams["learning_rate"].dtype == (
        jnp.float32
    )


def test_numbers_can_be_replaced_without_changing_types():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(1.0)
    state = tx.init(jnp.ones(1))
    compiled = jax.jit(tx.update)
    for lr in (2, 0.5, np.float64(0.25), jnp.float32(4.0)):
        before = _types(state)
        state.hyperparams["learning_rate"] = lr
        updates, state = compiled(jnp.ones(1), state)
        assert updates.item() == -lr
        assert _types(state) == before


def test_scheduled_numbers_follow_their_schedule_even_if_replaced():
    tx = gradtx.inject_hyperparams(gradtx.scale)(gradtx.linear_schedule(1.0, 0.0, 4))
    state = tx.init(jnp.ones(1))
    assert state.hyperparams["step_size"].item() == 1.0
    made = []
    for _ in range(4):
        state.hyperparams["step_size"] = 9.0
        updates, state = tx.update(jnp.ones(1), state)
        made.append((updates.item(), state.hyperparams["step_size"].item()))
    assert made == [(x, x) for x in (1.0, 0.75, 0.5, 0.25)]
    assert int(state.count) == 4
    assert int(state.hyperparams_states["step_size"].count) == 4


class _Total(NamedTuple):
    total: Any


class _Driven:
    def init(self):
        return _Total(jnp.zeros(()))

    def update(self, state, **extra):
        return _Total(state.total + extra["loss"])

    def __call__(self, state, **extra):
        return state.total


def test_stateful_schedule_gets_extra_arguments():
    assert isinstance(_Driven(), gradtx.StatefulSchedule)
    tx = gradtx.inject_hyperparams(gradtx.scale)(_Driven())
    state = tx.init(jnp.ones(1))
    made = []
    for loss in (1.0, 2.0, 4.0):
        updates, state = tx.update(jnp.ones(1), state, loss=jnp.array(loss))
        made.append(updates.item())
    assert made == [0.0, 1.0, 3.0]


def test_what_is_no_number_stays_what_it_is():
    def make(rate, times: int, mask, key, flag=True, label="x", size=3, fn=jnp.sign):
        assert isinstance(times, int)
        assert key is KEY
        return gradtx.masked(gradtx.scale(-rate), mask)

    KEY = jax.random.key(0)
    inject = gradtx.inject_hyperparams(make)
    tx = inject(0.1, 2, gradtx.ndim_at_least(2), KEY, size=4)
    state = jax.jit(tx.init)(PARAMS)
    assert set(state.hyperparams) == {"rate", "size"}
    static = gradtx.inject_hyperparams(make, static_args=["size", "mask"])
    tx = static(0.1, 2, lambda p: jax.tree.map(lambda x: x.ndim > 1, p), KEY)
    assert set(tx.init(PARAMS).hyperparams) == {"rate"}


def test_arguments_are_checked_where_they_are_given():
    with pytest.raises(gradtx.ArgumentError, match="b2 must lie"):
        gradtx.inject_hyperparams(gradtx.adam)(0.1, b2=1.5)
    with pytest.raises(gradtx.ArgumentError, match="inject_hyperparams: static_args"):
        gradtx.inject_hyperparams(gradtx.adam, static_args="lr")


def test_unknown_hyperparameters_are_refused():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    state = tx.init(PARAMS)
    state.hyperparams["lr"] = 0.2
    with pytest.raises(gradtx.ArgumentError, match=r"have the .*\['learning_rate'\]"):
        tx.update(PARAMS, state, PARAMS)


def test_links_in_a_chain_go_by_name():
    tx = gradtx.chain(
        gradtx.clip(1.0), gradtx.inject_hyperparams(gradtx.scale)(step_size=2.0)
    )
    state = tx.init(PARAMS)
    assert state.inject_hyperparams.hyperparams["step_size"].item() == 2.0


def test_state_owns_its_buffers_and_can_be_donated():
    rate = jnp.array(0.5, jnp.float32)
    tx = gradtx.inject_hyperparams(gradtx.sgd)(rate)
    state = tx.init(PARAMS)
    jax.jit(lambda s: jax.tree.map(lambda x: x + 0, s), donate_argnums=0)(state)
    assert rate.item() == 0.5
