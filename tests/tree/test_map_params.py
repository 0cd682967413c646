"""What a state keeps per parameter is told exactly, for every kind of state."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
import gradtx.testing
from gradtx import MaskedNode, tree

PARAMS = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
SPECS = {"kernel": "K", "bias": "B"}


def _specs(tx, params=None, specs=None):
    params = PARAMS if params is None else params
    return tree.map_params(
        tx,
        lambda _, spec: spec,
        tx.init(params),
        SPECS if specs is None else specs,
        transform_non_params=lambda _: "-",
    )


@pytest.mark.parametrize("name", sorted(gradtx.testing.catalogue()))
def test_specs_go_exactly_to_leaves_of_the_parameters_shape(name):
    tx = gradtx.testing.catalogue()[name]
    state, specs = tx.init(PARAMS), _specs(tx)
    shapes = {"K": (4, 3), "B": (3,)}
    leaves, marks = jax.tree.leaves(state), jax.tree.leaves(specs)
    assert len(leaves) == len(marks)
    for leaf, mark in zip(leaves, marks, strict=True):
        if mark != "-":
            assert leaf.shape == shapes[mark]


def test_moments_get_the_specs_and_counts_do_not():
    adam = _specs(gradtx.adam(1e-3))
    assert tuple(adam[0]) == ("-", SPECS, SPECS)
    assert tuple(adam[1]) == ("-", "-")


def test_masked_leaves_are_passed_over():
    tx = gradtx.masked(gradtx.trace(0.9), {"kernel": True, "bias": False})
    assert _specs(tx).inner_state.trace == {"kernel": "K", "bias": MaskedNode()}
    shown = tree.map_params(
        tx,
        lambda x, spec: "hidden" if isinstance(x, MaskedNode) else spec,
        tx.init(PARAMS),
        SPECS,
        is_leaf=lambda x: isinstance(x, MaskedNode),
    )
    assert shown.inner_state.trace == {"kernel": "K", "bias": "hidden"}


def test_partitions_and_accumulation_are_entered():
    tx = gradtx.accumulate(
        gradtx.partition(
            {"a": gradtx.adam(1e-3), "b": gradtx.sgd(0.1, momentum=0.9)},
            {"kernel": "a", "bias": "b"},
        ),
        every=2,
    )
    specs = _specs(tx)
    assert specs.acc_grads == SPECS
    inner = specs.inner_opt_state.inner_states
    assert inner["a"].inner_state[0].mu == {"kernel": "K", "bias": MaskedNode()}
    assert inner["b"].inner_state[0].trace == {"kernel": MaskedNode(), "bias": "B"}


def test_states_without_roles_are_told_by_init():
    def init(params):
        return {"steps": jnp.zeros((), jnp.int32), "mean": tree.zeros_like(params)}

    tx = gradtx.chain(
        gradtx.GradientTransformation(init, lambda g, s, p=None: (g, s)),
        gradtx.masked(
            gradtx.GradientTransformation(init, lambda g, s, p=None: (g, s)),
            {"kernel": False, "bias": True},
        ),
    )
    raw, masked = _specs(tx)
    assert raw == {"steps": "-", "mean": SPECS}
    assert masked.inner_state["mean"] == {"kernel": MaskedNode(), "bias": "B"}


def test_a_state_that_cannot_be_told_says_how_to_mend_it():
    def init(params):
        return {"mean": jnp.zeros(params["kernel"].shape)}

    tx = gradtx.GradientTransformation(init, lambda g, s, p=None: (g, s))
    with pytest.raises(gradtx.ArgumentError, match=r"Annotate the state's fields"):
        _specs(tx)


@pytest.mark.parametrize("name", sorted(gradtx.testing.catalogue()))
def test_only_what_has_the_shape_of_a_parameter_is_taken_for_one(name):
    # COMPATIBILITY.md, section 2: specs of parameters went to factored moments
    tx = gradtx.testing.catalogue()[name]
    params = {"kernel": jnp.ones((256, 130)), "bias": jnp.ones(3)}
    state = jax.eval_shape(tx.init, params)
    specs = {"kernel": (256, 130), "bias": (3,)}

    def check(x, spec):
        assert x.shape == spec
        return x

    gradtx.tree.map_params(tx, check, state, specs)
