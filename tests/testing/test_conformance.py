"""Every transformation has every property, or says why it has not."""

import random

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing import PROPERTIES, catalogue, check_transformation, conformance
from tests.optimizers._forms import EVERY

NUMERIC = [code for code, prop in PROPERTIES.items() if not prop.abstract]
ABSTRACT = [code for code, prop in PROPERTIES.items() if prop.abstract]
#: Links that stand in an optimizer of the catalogue, which has every property checked.
INSIDE = sorted(
    {
        link
        for name, tx in catalogue().items()
        if hasattr(gradtx.optimizers, name) and not name.startswith("scale_by_")
        for link in getattr(
            jax.eval_shape(tx.init, {"w": jnp.ones((4, 3))}), "_fields", ()
        )
        if link in catalogue() and link.startswith("scale_by_")
    }
)
#: What takes thousands of steps, or several programs for one step.
LONG = ["P9", "P10", "P14", "P15"]
OUTSIDE = [item for item in catalogue().items() if item[0] not in INSIDE]
#: Of which these run each time, and all of them with `-m slow`.
SAMPLE = random.Random(3).sample(OUTSIDE, len(OUTSIDE) // 4)
#: And these compiled as users get them: last bits decide whether a square of adabelief
#: that is capped too late is told.
USUAL = [(name, catalogue()[name]) for name in ("adabelief", "adamw")]
SHIPPED = [*USUAL, *random.Random(9).sample(OUTSIDE, 4)]
#: What one or two compiled steps tell.
FEW = ["P4", "P5", "P7", "P17"]
#: Forms that the catalogue does not have, because their defaults are others.
FORMS = [tx for tx in EVERY if tx not in catalogue().values()]


@conformance(catalogue().items(), ABSTRACT)
def test_types_and_errors(check):
    check()


@conformance(OUTSIDE, [code for code in NUMERIC if code not in LONG], heavy=False)
def test_numbers(check):
    check()


@conformance(SAMPLE, LONG, heavy=False)
def test_long_runs(check):
    check()


@pytest.mark.shipped
@conformance(SHIPPED, NUMERIC, heavy=False)
def test_numbers_as_shipped(check):
    check()


@pytest.mark.slow
@pytest.mark.shipped
@conformance(OUTSIDE, NUMERIC, heavy=False)
def test_all_numbers_as_shipped(check):
    check()


@pytest.mark.slow
@conformance(OUTSIDE, LONG, heavy=False)
def test_all_long_runs(check):
    check()


@conformance([(name, catalogue()[name]) for name in INSIDE], FEW, heavy=False)
def test_numbers_of_links_inside_optimizers(check):
    check()


@pytest.mark.slow
@conformance([(name, catalogue()[name]) for name in INSIDE], NUMERIC, heavy=False)
def test_all_numbers_of_links_inside_optimizers(check):
    check()


@conformance(FORMS, [*ABSTRACT, "P4", "P5", "P7"])
def test_other_forms(check):
    check()


# seconds for each; trees of this size take the same way through the code in all
@pytest.mark.parametrize("name", ["adamw", "chain", "lbfgs", "muon", "partition"])
def test_a_thousand_leaves(name):
    prop = PROPERTIES["P3"]
    for cell in prop.heavy:
        prop.run(gradtx.testing.Subject(catalogue()[name]), cell)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue())
def test_a_thousand_leaves_everywhere(name):
    prop = PROPERTIES["P3"]
    for cell in prop.heavy:
        prop.run(gradtx.testing.Subject(catalogue()[name]), cell)


def test_there_are_enough_cells_and_few_exceptions():
    cells = sum(len(prop.cells) for prop in PROPERTIES.values())
    assert cells * len(catalogue()) >= 3000
    declared = {key for tx in catalogue().values() for key in tx.traits.exempt}
    assert len(declared) < 20


def test_traits_of_a_chain_are_those_of_its_links():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    assert tx.traits.reach == "tree"
    assert tx.traits.needs == {"params"}
    assert gradtx.sgd(0.1).traits == gradtx.Traits()
    assert gradtx.accumulate(gradtx.polyak_sgd(), 2).traits.needs == {"value"}
    assert gradtx.flatten(gradtx.scale_by_novograd()).traits.reach == "tree"
    injected = gradtx.inject_hyperparams(gradtx.lamb)(learning_rate=1.0)
    assert injected.traits == gradtx.lamb(1.0).traits


def test_what_novograd_needs_depends_on_its_decay():
    params = {"w": jnp.ones(2)}
    plain, decaying = gradtx.novograd(0.1), gradtx.novograd(0.1, weight_decay=0.1)
    plain.update(params, plain.init(params))
    with pytest.raises(
        gradtx.MissingArgumentError, match="scale_by_novograd: update needs the current"
    ):
        decaying.update(params, decaying.init(params))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"needs": {"parms"}}, r"Traits: needs must be among .*, got 'parms'"),
        ({"reach": "global"}, r"Traits: reach must be one of .*, got 'global'"),
        ({"form": "rows"}, r"Traits: form must be one of .*, got 'rows'"),
    ],
)
def test_a_wrong_trait_is_told(change, message):
    with pytest.raises(gradtx.ArgumentError, match=message):
        gradtx.Traits(**change)


def test_an_unknown_property_is_told():
    with pytest.raises(gradtx.ArgumentError, match=r"must be among P1, .*got 'P99'"):
        check_transformation(gradtx.scale(1.0), properties=["P99"])
