"""A donated step needs no memory but parameters, state and gradients.

Temporaries are those of the compiled program: copies of donated arrays, and what two
of its loops share. What they are for is written beside the code that needs them.
"""

import jax
import jax.numpy as jnp
import pytest

import gradtx
import gradtx.optimizers

#: Leaves of one shape too: they must not share what is spread to their size.
SHAPES = {"a": (256, 512), "b": (256, 512), "c": (512, 384), "v": (512,)}
#: Scalars, sums in parts and vectors: a hundredth of the parameters, and 4 kB.
SMALL = 0.01 * 4
SCALARS = 4096

OTHERS = {
    "clip, adamw": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
    "momentum": gradtx.sgd(1e-3, momentum=0.9),
    "nesterov": gradtx.sgd(1e-3, momentum=0.9, nesterov=True),
    "rmsprop, momentum": gradtx.rmsprop(1e-3, momentum=0.9),
    "rmsprop, centered": gradtx.rmsprop(1e-3, centered=True, momentum=0.9),
    "lion, equal decays": gradtx.lion(1e-3, b1=0.95, b2=0.95, weight_decay=0.1),
    "lars, L2": gradtx.lars(1e-3, weight_decay=0.1),
    "adadelta, L2": gradtx.adadelta(1.0, weight_decay=0.1),
    "adagrad, torch": gradtx.adagrad(1e-3, 0.0, 1e-10, eps_in_sqrt=False),
    "adabelief, nesterov": gradtx.adabelief(1e-3, nesterov=True),
    "dog, L2": gradtx.dog(weight_decay=0.1),
    "momo, decay": gradtx.momo(weight_decay=0.1),
    "schedule_free_adamw, decay": gradtx.schedule_free_adamw(
        1e-3, warmup_steps=10, weight_decay=0.1
    ),
    "mechanize(adam)": gradtx.mechanize(gradtx.adam(1.0)),
    "accumulate(adamw)": gradtx.accumulate(gradtx.adamw(1e-3), every=4),
    "accumulate(sgd), 3": gradtx.accumulate(gradtx.sgd(1e-3), every=3),
}

#: Bytes per parameter of what needs any, and why.
TEMPORARIES = {
    # the update reads a state after its new value is due: that state is copied
    "acprop": 4,
    "optimistic_gradient_descent": 4,
    "optimistic_adam": 7,
    "optimistic_adam_v2": 7,
    # one direction, with roots and quotients, for a norm and for the update
    "lamb": 4,
    "adafactor": 4,
    # one sum of gradient and decay, likewise
    "lars, L2": 4,
    "dog, L2": 4,
    "adadelta, L2": 4,
    # numbers that leaves of one shape share
    "polyak_sgd": 2,
    # one array for two maxima
    "sm3": 4,
    # random numbers
    "noisy_sgd": 12,
    # what leaves a condition is an array: the update
    "accumulate(adamw)": 4,
    "accumulate(sgd), 3": 4,
    # projections
    "galore": 8,
}

#: All whose `update` takes no function, and no gradient per example. Muon's matrices
#: have a budget of their own in benchmarks/budgets.py.
CATALOGUE = {
    name: tx
    for name, tx in gradtx.testing.catalogue().items()
    if hasattr(gradtx.optimizers, name)
    and not name.startswith("scale_by_")
    and tx.traits.needs <= {"params", "value"}
    and tx.traits.form == "gradients"
    and name != "muon"
}
EVERY = CATALOGUE | OTHERS


def compiled(tx, shapes):
    """Return the program of a donated step."""
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    state = jax.eval_shape(tx.init, params)

    def step(params, state, grads):
        extra = {"value": jnp.ones(())} if "value" in tx.traits.needs else {}
        updates, state = tx.update(grads, state, params, **extra)
        return gradtx.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    return lowered.compile()


def temporaries(tx):
    """Return the bytes that a donated step takes beside its arguments."""
    analysis = compiled(tx, SHAPES).memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


SIZE = sum(jnp.zeros(shape).size for shape in SHAPES.values())


@pytest.mark.parametrize("name", EVERY)
def test_temporaries_stay_in_their_budget(name):
    allowed = TEMPORARIES.get(name, 0) + SMALL
    assert temporaries(EVERY[name]) <= allowed * SIZE + SCALARS


def test_waiting_call_of_accumulate_copies_no_state():
    tx = gradtx.accumulate(gradtx.adamw(1e-3), every=4)
    program = compiled(tx, {"w": (256, 512)}).as_text()
    assert program is not None
    assert " conditional(" in program
    large = [line for line in program.splitlines() if "256,512]" in line]
    assert not [line for line in large if " copy(" in line]


def test_budgets_are_of_what_is_there():
    assert TEMPORARIES.keys() <= EVERY.keys()
