"""Hyperparameters in the state: there, float32, replaceable, and the same numbers."""

import functools
import inspect
import json
import pickle
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
    if name.endswith("loss_scaling"):  # and so are scales
        scales = {"initial", "growth", "minimum", "maximum", "scale"}
        numbers |= scales & set(call.arguments)
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


SCHEDULE = gradtx.linear_schedule(0.1, 0.0, 10)
REMEMBERED = {
    "inject_hyperparams(adamw)(0.001)": lambda inject: inject(gradtx.adamw)(1e-3),
    "inject_hyperparams(scale)(linear_schedule(0.1, 0.0, 10))": (
        lambda inject: inject(gradtx.scale)(SCHEDULE)
    ),
    "inject_hyperparams(adam, static_args=('b1', 'b2'))(0.1, eps=0.5)": (
        lambda inject: inject(gradtx.adam, {"b2", "b1"})(0.1, eps=np.float64(0.5))
    ),
    "inject_hyperparams(sgd, hyperparam_dtype='float32')(0.1)": (
        lambda inject: inject(gradtx.sgd, hyperparam_dtype=jnp.float32)(0.1)
    ),
    "inject_hyperparams(chain)(clip(1.0), sgd(0.1))": (
        lambda inject: inject(gradtx.chain)(gradtx.clip(1.0), gradtx.sgd(0.1))
    ),
    "chain(clip(1.0), inject_hyperparams(masked)(sgd(0.1), ndim_at_least(2)))": (
        lambda inject: gradtx.chain(
            gradtx.clip(1.0),
            inject(gradtx.masked)(gradtx.sgd(0.1), gradtx.ndim_at_least(2)),
        )
    ),
}


@pytest.mark.parametrize("text", REMEMBERED)
def test_what_is_made_remembers_both_calls(text):
    tx = REMEMBERED[text](gradtx.inject_hyperparams)
    assert repr(tx) == text
    again = [
        eval(text, dict(vars(gradtx))),
        gradtx.build(json.loads(json.dumps(gradtx.describe(tx)))),
        pickle.loads(pickle.dumps(tx)),
    ]
    for other in again:
        assert other == tx
        assert hash(other) == hash(tx)
        assert repr(other) == text
        assert _types(other.init(PARAMS)) == _types(tx.init(PARAMS))


def test_a_built_one_makes_the_same_update():
    tx = gradtx.inject_hyperparams(gradtx.adamw)(SCHEDULE, weight_decay=0.1)
    other = gradtx.build(gradtx.describe(tx))
    made = [t.update(PARAMS, t.init(PARAMS), PARAMS) for t in (tx, other)]
    jax.tree.map(np.testing.assert_array_equal, *made)


def test_what_differs_makes_another_value():
    inject = gradtx.inject_hyperparams
    tx = inject(gradtx.adam)(0.1)
    for other in (
        inject(gradtx.adam)(0.2),
        inject(gradtx.adam)(0.1, b1=0.8),
        inject(gradtx.adamax)(0.1),
        inject(gradtx.adam, "b1")(0.1),
        inject(gradtx.adam, hyperparam_dtype=jnp.float32)(0.1),
        inject(optax.adam)(0.1),
        gradtx.adam(0.1),
    ):
        assert other != tx


def test_description_is_a_call_with_the_call_inside():
    tx = gradtx.inject_hyperparams(gradtx.sgd, "momentum")(SCHEDULE, momentum=0.9)
    assert gradtx.describe(tx) == {
        "call": "gradtx.inject_hyperparams",
        "arguments": {
            "inner_factory": gradtx.describe(gradtx.sgd(SCHEDULE, momentum=0.9)),
            "static_args": {"$tuple": ["momentum"]},
            "hyperparam_dtype": None,
        },
    }


def test_a_description_of_before_gets_the_defaults_of_now_or_says_what_is_missing():
    tx = gradtx.inject_hyperparams(gradtx.adam)(0.1)
    data = gradtx.describe(tx)
    inner = data["arguments"]["inner_factory"]
    del inner["arguments"]["nesterov"]
    assert gradtx.build(data) == tx
    del inner["arguments"]["learning_rate"]
    with pytest.raises(gradtx.DescriptionError, match=r"gradtx.adam: .*learning_rate"):
        gradtx.build(data)
    inner["call"] = "gradtx.adm"
    with pytest.raises(gradtx.DescriptionError, match=r"gradtx.adm.* mean gradtx.adam"):
        gradtx.build(data)


def test_hyperparameters_go_by_the_path_of_the_call_inside():
    inject = gradtx.inject_hyperparams
    tx = gradtx.chain(gradtx.clip(1.0), inject(gradtx.sgd)(SCHEDULE))
    found = gradtx.hyperparameters(tx)
    assert found["inject_hyperparams.inner_factory.learning_rate"] == SCHEDULE
    found = gradtx.hyperparameters(inject(gradtx.chain)(gradtx.clip(2.0)))
    assert found["inner_factory.clip.max_delta"] == 2.0


def test_factories_of_others_are_known_by_name_only():
    def mine(rate):
        return gradtx.sgd(rate)

    for factory in (mine, optax.adam):
        tx = gradtx.inject_hyperparams(factory)(0.1)
        data = gradtx.describe(tx, opaque=True)
        name = f"{factory.__module__}.{factory.__qualname__}"
        assert data["arguments"]["inner_factory"] == {"$opaque": name}
        with pytest.raises(gradtx.DescriptionError, match="inner_factory is opaque"):
            gradtx.describe(tx)
        assert tx == gradtx.inject_hyperparams(factory)(0.1)
        assert tx != gradtx.inject_hyperparams(factory)(0.2)
    partial = gradtx.inject_hyperparams(functools.partial(gradtx.adam, b1=0.5))(0.1)
    assert "functools.partial" in repr(partial)


def test_explain_looks_inside():
    tx = gradtx.inject_hyperparams(gradtx.adamw)(SCHEDULE, mask=gradtx.ndim_at_least(2))
    told = gradtx.telemetry.explain(tx, PARAMS)
    plain = gradtx.telemetry.explain(
        gradtx.adamw(SCHEDULE, mask=gradtx.ndim_at_least(2)), PARAMS
    )
    assert told.leaves == plain.leaves
    other = gradtx.telemetry.explain(gradtx.inject_hyperparams(optax.sgd)(0.1), PARAMS)
    assert "inject_hyperparams (opaque)" in str(other)


def test_explain_takes_a_stateful_schedule_at_its_start():
    class Half:
        def init(self):
            return jnp.zeros(())

        def update(self, state, **extra):
            return state

        def __call__(self, state, **extra):
            return state + 0.5

    tx = gradtx.inject_hyperparams(gradtx.sgd)(Half())
    told = gradtx.telemetry.explain(tx, PARAMS)
    assert {leaf.learning_rate for leaf in told.leaves} == {0.5}
