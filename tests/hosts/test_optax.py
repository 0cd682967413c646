"""Mix with optax: gradtx inside its wrappers, its transformations inside gradtx."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from tests.hosts import _models

pytestmark = pytest.mark.usefixtures("lenient")

MASK = gradtx.ndim_at_least(2)
# optax annotates its own tuple types, and checks none of them
adam: Any = gradtx.adam(0.05)
momentum: Any = gradtx.sgd(0.05, momentum=0.9)
make_adam: Any = gradtx.adam
make_sgd: Any = gradtx.sgd

IN_OPTAX = {
    "chain": (
        optax.chain(optax.clip_by_global_norm(0.5), adam, optax.identity()),
        gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adam(0.05)),
    ),
    "MultiSteps": (
        optax.MultiSteps(adam, every_k_schedule=2),
        gradtx.accumulate(gradtx.adam(0.05), every=2),
    ),
    "masked": (optax.masked(adam, MASK), gradtx.masked(gradtx.adam(0.05), MASK)),
    "partition": (
        optax.partition({True: adam, False: momentum}, MASK),
        gradtx.partition({True: adam, False: momentum}, MASK),
    ),
    "apply_if_finite": (optax.apply_if_finite(adam, 3), gradtx.adam(0.05)),
    "inject_hyperparams": (
        optax.inject_hyperparams(make_adam)(learning_rate=0.05),
        gradtx.adam(0.05),
    ),
    "inject_hyperparams of a schedule": (
        optax.inject_hyperparams(make_sgd, static_args="nesterov")(
            learning_rate=optax.linear_schedule(0.05, 0.0, 10), momentum=0.9
        ),
        gradtx.sgd(gradtx.schedules.linear_schedule(0.05, 0.0, 10), momentum=0.9),
    ),
}

IN_GRADTX = {
    "chain": (
        gradtx.chain(
            optax.clip_by_global_norm(0.5),
            gradtx.scale_by_adam(),
            optax.scale(-0.05),
        ),
        gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adam(0.05)),
    ),
    "raw pair": (
        gradtx.chain(
            gradtx.trace(0.9),
            (
                lambda params: (),
                lambda u, s, p=None: (jax.tree.map(lambda x: -0.05 * x, u), s),
            ),
        ),
        momentum,
    ),
    # optax's Adam corrects its means in float32, off by 1e-5: it is its own reference
    "accumulate": (
        gradtx.accumulate(optax.adam(0.05), every=2),
        optax.MultiSteps(optax.adam(0.05), every_k_schedule=2),
    ),
    "partition": (
        gradtx.partition({True: optax.adam(0.05), False: momentum}, MASK),
        optax.partition(
            {True: optax.adam(0.05), False: optax.sgd(0.05, momentum=0.9)}, MASK
        ),
    ),
    "extra arguments": (
        gradtx.chain(optax.scale(-0.05), optax.contrib.reduce_on_plateau(cooldown=1)),
        optax.chain(optax.scale(-0.05), optax.contrib.reduce_on_plateau(cooldown=1)),
    ),
}

BOTH = {f"in optax: {k}": v for k, v in IN_OPTAX.items()}
BOTH |= {f"in gradtx: {k}": v for k, v in IN_GRADTX.items()}


@pytest.mark.parametrize("name", BOTH)
def test_a_mixture_trains_as_gradtx_alone(name):
    mixture, alone = BOTH[name]
    _models.assert_close(_models.plain_loop(mixture), _models.plain_loop(alone))


def test_optax_and_gradtx_apply_the_same_updates():
    params = _models.params()
    tx = gradtx.adam(0.05)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    theirs: Any = optax.apply_updates(params, updates)
    _models.assert_same_bits(gradtx.apply_updates(params, updates), theirs)


def test_hyperparameters_injected_by_optax_can_be_changed_while_training():
    tx = optax.inject_hyperparams(make_adam)(learning_rate=0.05)
    params = _models.params()
    state: Any = tx.init(params)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = jax.jit(tx.update)(params, state, params)
    kernel: Any = updates
    # Adam's first step is the learning rate, up to eps beside the gradient
    step = jnp.abs(kernel["out"]["kernel"])
    assert jnp.allclose(step, 0.5, rtol=1e-5)


def test_optax_finds_the_fields_of_a_gradtx_state():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.05))
    params = _models.params()
    state = tx.init(params)
    assert optax.tree_utils.tree_get(state, "nu") is state.adam.scale_by_adam.nu
    placed: Any = optax.tree_utils.tree_map_params(
        tx,
        lambda _: "param",
        state,
        transform_non_params=lambda _: "scalar",
    )
    assert placed.adam.scale_by_adam.mu["out"]["bias"] == "param"
    assert placed.adam.scale_by_adam.count == "scalar"
