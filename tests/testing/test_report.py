"""The kit finds what is wrong with transformations of other authors."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.testing import PROPERTIES, Report, Result, check_transformation
from tests.hosts import _signum


def _codes(tx, **options):
    report = check_transformation(tx, raises=False, heavy=False, **options)
    return {(r.code, r.cell) for r in report.failures}


def pair(update, init=lambda params: ()):
    """Return a transformation made by hand, as other libraries would give it."""
    return gradtx.GradientTransformation(init, update)


def each(leaf, **traits):
    """Return a link without a state, which lifts a function of one leaf."""

    @gradtx.transformation(**traits)
    def link():
        def update(updates, state, params=None, **extra):
            return gradtx.map_leaves(leaf, updates), state

        return gradtx.identity().init, update

    return link()


def _counting(count):
    def update(updates, state, params=None):
        return updates, count(state)

    return pair(update, lambda params: jnp.zeros((), jnp.int32))


def test_a_good_one_passes():
    # a factory inside a function cannot be pickled, or found by its name
    assert not _codes(
        each(lambda g: 0.5 * g), properties={*PROPERTIES} - {"P17", "P18"}
    )


def test_the_link_of_the_readme_passes():
    assert not _codes(_signum.scale_by_signum(0.9))


@pytest.mark.parametrize(
    ("tx", "code", "cell"),
    [
        (pair(lambda u, s, p=None: (jax.tree.map(jnp.sum, u), s)), "P1", "float32"),
        (_counting(lambda n: n + 1), "P7", "top"),
        (each(lambda g: g / jnp.max(jnp.abs(g))), "P6", "nan"),
        (each(lambda g: g * g), "P5", "float32 1e20"),
        (each(lambda g: g / jnp.sqrt(g * g)), "P4", "float32"),
        (each(lambda g: g + 1), "P4", "float32"),
        (each(lambda g: jnp.sqrt(jnp.abs(g))), "P16", "zero gradient"),
        (each(lambda g: jnp.cumsum(g, 0)), "P15", "rows and columns"),
        (each(lambda g: g, reach="tree"), "P18", "reach"),
        (each(lambda g: g, differentiable=False), "P18", "differentiable"),
        (each(lambda g: g, stochastic=True), "P18", "stochastic"),
        (each(lambda g: g, exempt={"P4": "for fun"}), "P4", "exemption"),
        (each(lambda g: g, complex=False), "P1", "complex64"),
    ],
)
def test_a_bad_one_fails(tx, code, cell):
    assert (code, cell) in _codes(tx, properties=[code])


def test_optax_fails_where_it_is_known_to():
    # what a transformation of another library needs is said by hand
    codes = ["P1", "P2", "P4", "P5", "P13", "P16"]
    with jax.numpy_dtype_promotion("standard"):
        found = _codes(optax.adam(1e-3), properties=codes)
    assert {
        ("P4", "float16"),
        ("P5", "float32 1e20"),
        ("P16", "zero gradient"),
    } <= found
    assert ("P2", "bfloat16 / float32") in found
    assert ("P1", "float32") not in found


def test_what_is_declared_is_no_failure(capsys):
    tx = each(lambda g: g + 1, exempt={"P4": "it adds one"})
    report = check_transformation(tx, properties=["P4"])
    assert {r.outcome for r in report.results} == {"exempt"}
    assert "it adds one" in capsys.readouterr().out


def test_failures_raise_with_a_table():
    with pytest.raises(
        AssertionError, match=r"fail: link \[float32\] parameters at zero"
    ):
        check_transformation(each(lambda g: g + 1), properties=["P4"])


def test_a_report_counts_by_property():
    results = [
        Result("sgd", "P1", "float16", "pass"),
        Result("sgd", "P1", "float32", "fail", "reason"),
    ]
    first, second = Report(tuple(results)).table().split("\n")
    assert first.startswith("P1   1 pass, 1 fail")
    assert second == "     fail: sgd [float32] reason"


def test_extra_arguments_are_given_where_they_are_needed():
    traits = gradtx.Traits(needs={"value"})

    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda g: g * value, updates), state

    tx = gradtx.GradientTransformation(lambda params: (), update, traits=traits)
    check_transformation(tx, properties=["P1", "P8"])
    with pytest.raises(gradtx.MissingArgumentError, match="needs the value"):
        tx.update({"w": jnp.ones(2)}, ())
