"""A run moves between optax and gradtx in the middle, and goes on as it would have."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import interop

pytestmark = pytest.mark.usefixtures("lenient")  # optax promotes

PARAMS = {"kernel": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": np.ones(3)}
MASK = {"kernel": True, "bias": False}


def falling(t):
    return 0.1 / (1 + t)


def _cosine(library):
    return library.cosine_decay_schedule(0.1, 20)


#: name: how to make it from either library
FORMS = {
    "sgd": lambda o: o.sgd(0.1),
    "sgd momentum": lambda o: o.sgd(falling, momentum=0.9),
    "adam": lambda o: o.adam(0.1),
    "adam schedule": lambda o: o.adam(_cosine(o)),
    "adamw mask": lambda o: o.adamw(0.1, mask=MASK),
    "adamax": lambda o: o.adamax(0.1),
    "nadam": lambda o: o.nadam(0.1),
    "radam": lambda o: o.radam(0.1),
    "rmsprop": lambda o: o.rmsprop(0.1, momentum=0.9),
    "rmsprop centered": lambda o: o.rmsprop(0.1, centered=True, bias_correction=True),
    "adagrad": lambda o: o.adagrad(0.1),
    "lion": lambda o: o.lion(0.1),
    "clip chain": lambda o: o.chain(o.clip_by_global_norm(1.0), o.adamw(falling)),
    "masked": lambda o: o.masked(o.adam(0.1), MASK),
    "partition": lambda o: o.partition(
        {"a": o.adam(0.1), "b": o.sgd(0.1, momentum=0.9)}, {"kernel": "a", "bias": "b"}
    ),
    "injected": lambda o: o.inject_hyperparams(o.adamw)(falling, weight_decay=0.1),
    "injected in a chain": lambda o: o.chain(
        o.clip_by_global_norm(1.0), o.inject_hyperparams(o.sgd)(0.1, momentum=0.9)
    ),
    "ema": lambda o: o.chain(o.ema(0.9), o.scale(-0.1)),
}


def _multi_steps(library, mean):
    if library is optax:
        return optax.MultiSteps(
            optax.adam(0.1), 3, use_grad_mean=mean, accumulator_dtype=jnp.float64
        ).gradient_transformation()
    return gradtx.accumulate(
        gradtx.adam(0.1), 3, mean=mean, accumulator_dtype=jnp.float64
    )


for mean in (True, False):
    FORMS[f"accumulate {mean}"] = lambda o, mean=mean: _multi_steps(o, mean)


def _grads(step, params):
    key = jax.random.fold_in(jax.random.key(0), step)
    noise = gradtx.tree.random_like(key, params)
    return jax.tree.map(lambda p, n: p + 0.3 * n, params, noise)


def _run(tx, params, state, steps):
    for step in steps:
        updates, state = tx.update(_grads(step, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.fixture
def params(x64):
    return jax.tree.map(jnp.asarray, PARAMS)


def _same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # ten steps of some thirty roundings of 2^-53, and radam's cancellation
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("told", [False, True])
def test_a_run_moves_from_optax_to_gradtx(name, told, params):
    theirs, ours = FORMS[name](optax), FORMS[name](gradtx)
    middle, old = _run(theirs, params, theirs.init(params), range(5))
    expected, _ = _run(theirs, middle, old, range(5, 10))
    new = interop.from_optax_state(ours, old, params if told else None)
    fresh = jax.tree.structure(ours.init(params))
    assert jax.tree.structure(new) == fresh
    got, _ = _run(ours, middle, new, range(5, 10))
    _same(got, expected)


@pytest.mark.parametrize("name", FORMS)
def test_a_run_moves_from_gradtx_to_optax(name, params):
    theirs, ours = FORMS[name](optax), FORMS[name](gradtx)
    middle, old = _run(ours, params, ours.init(params), range(5))
    expected, _ = _run(ours, middle, old, range(5, 10))
    new = interop.to_optax_state(ours, old, params)
    assert jax.tree.structure(new) == jax.tree.structure(theirs.init(params))
    got, _ = _run(theirs, middle, new, range(5, 10))
    _same(got, expected)


def test_a_state_of_another_optimizer_is_refused():
    params = {"w": jnp.zeros(2)}
    old = optax.sgd(0.1, momentum=0.9).init(params)
    with pytest.raises(
        gradtx.TreeMismatchError, match=r"state.scale_by_adam.mu: expec"
    ):
        interop.from_optax_state(gradtx.adam(0.1), old)
    with pytest.raises(gradtx.TreeMismatchError, match="expected 1 links, got 2"):
        interop.from_optax_state(gradtx.sgd(0.1), old)
    with pytest.raises(gradtx.TreeMismatchError, match="expected shape"):
        interop.from_optax_state(
            gradtx.adam(0.1), optax.adam(0.1).init({"w": jnp.zeros(3)}), params
        )


def test_what_optax_lacks_is_named():
    tx = gradtx.pmean_gradients("data")
    with pytest.raises(gradtx.ArgumentError, match="optax has no pmean_gradients"):
        interop.to_optax_state(tx, tx.init({}))


def test_to_optax_passes_extra_arguments_through_optax():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    raw = gradtx.GradientTransformation(lambda p: (), update)
    tx = optax.chain(optax.identity(), interop.to_optax(raw))
    tx.update({}, tx.init({}), value=3.0)
    assert seen == {"value": 3.0}
