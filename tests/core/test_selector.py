"""Masks by path and rank that can be written down."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import ArgumentError
from gradtx.core import resolve_mask

PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": [jnp.ones((2, 2)), jnp.ones(2)],
}


def test_paths_join_by_slashes():
    seen = []

    @gradtx.selector
    def spy():
        return lambda path, leaf: bool(seen.append(path)) or True

    spy()(PARAMS)
    assert seen == ["encoder/bias", "encoder/kernel", "head/0", "head/1"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (gradtx.path_matches("kernel$"), [False, True, False, False]),
        (gradtx.path_matches("^head/0"), [False, False, True, False]),
        (gradtx.ndim_at_least(2), [False, True, True, False]),
        (~gradtx.ndim_at_least(2), [True, False, False, True]),
        (
            gradtx.ndim_at_least(2) & gradtx.path_matches("head"),
            [False, False, True, False],
        ),
        (
            gradtx.ndim_at_least(2) | gradtx.path_matches("head"),
            [False, True, True, True],
        ),
    ],
    ids=repr,
)
def test_selects(selector, expected):
    assert jax.tree.leaves(selector(PARAMS)) == expected
    assert gradtx.build(gradtx.describe(selector)) == selector
    assert pickle.loads(pickle.dumps(selector)) == selector
    abstract = jax.eval_shape(lambda: PARAMS)
    assert jax.tree.leaves(selector(abstract)) == expected


def test_labels_by_first_match():
    label = gradtx.label_paths({"bias": "b", "encoder": "e"}, default="rest")
    assert jax.tree.leaves(label(PARAMS)) == ["b", "e", "rest", "rest"]


def test_bad_pattern_is_named():
    with pytest.raises(ArgumentError, match=r"path_matches: '\(' is no regular expr"):
        gradtx.path_matches("(")
    with pytest.raises(ArgumentError, match="no regular expression"):
        gradtx.label_paths({"(": "x"}, default="y")


def test_mask_may_be_a_prefix_or_a_function():
    prefix = {"encoder": True, "head": [False, True]}
    assert jax.tree.leaves(resolve_mask(prefix, PARAMS)) == [True, True, False, True]
    by_rank = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    assert jax.tree.leaves(resolve_mask(by_rank, PARAMS)) == [False, True, True, False]


def test_callable_module_of_bools_is_a_mask():
    class Layer(eqx.Module):
        kernel: object
        bias: object

        def __call__(self, x):
            raise AssertionError("a mask must not be called as a model")

    params = Layer(jnp.ones((2, 2)), jnp.ones(2))
    mask = Layer(True, False)
    assert jax.tree.leaves(resolve_mask(mask, params)) == [True, False]


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        ({"encoder": True}, "must have the structure of the parameters or of a prefix"),
        ({"encoder": 1.0, "head": True}, r"mask\['encoder'\]\['bias'\] must be a bool"),
    ],
)
def test_mask_that_does_not_fit_is_named(mask, pattern):
    with pytest.raises(ArgumentError, match=pattern):
        resolve_mask(mask, PARAMS)


def test_traced_mask_is_refused():
    def inside(flag):
        with pytest.raises(ArgumentError, match="is traced"):
            resolve_mask({"encoder": flag, "head": True}, PARAMS)
        return flag

    jax.jit(inside)(True)
