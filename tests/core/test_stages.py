"""Parts of an optimizer in an order that is seldom meant are told once, where made."""

import json
import pickle
import re
import warnings

import jax.numpy as jnp
import pytest

import gradtx as g
import gradtx.testing
from gradtx import OrderWarning
from gradtx.core import _call

#: Links whose names promise a stage, and why they have none.
NO_STAGE = {
    "clip_by_block_rms": "papers bound updates by it, after the preconditioner",
    "scale_by_backtracking_linesearch": "searches along the final direction",
    "scale_by_optimistic_gradient": "adds an old gradient, and rescales nothing",
    "scale_by_param_block_norm": "looks at parameters only",
    "scale_by_param_block_rms": "looks at parameters only",
    "scale_by_polyak": "takes the step size from the value, after a factor of it",
    "scale_by_shape": "looks at shapes only",
    "scale_by_sign": "has no history",
    "scale_by_trust_ratio": "has no history",
    "scale_by_zoom_linesearch": "searches along the final direction",
}


@g.transformation(stage="guard")
def watched(inner, *, axis_name=None):
    return inner.init, inner.update


@g.transformation(stage="loss_scale")
def unscaled(inner, *, axis_name=None):
    return inner.init, inner.update


def rate(step=0.1):
    return g.scale_by_learning_rate(step)


def made(make):
    """Return what `make` makes, and the messages of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OrderWarning)
        tx = make()
    return tx, [str(w.message) for w in caught if w.category is OrderWarning]


WRONG = [
    (
        lambda: g.chain(g.clip_by_global_norm(1.0), g.pmean_gradients("data")),
        "chain: clip_by_global_norm comes before pmean_gradients: each device clips by "
        "its own gradient, and what is averaged is no clipped gradient of the whole "
        "batch. Put pmean_gradients first. If this order is meant: "
        "chain(..., deliberate=True).",
    ),
    (
        lambda: g.chain(g.adaptive_grad_clip(0.1), g.accumulate(g.adam(0.1), 4)),
        "adaptive_grad_clip comes before accumulate: it clips each micro-batch",
    ),
    (
        lambda: g.chain(g.adam(0.1), g.pmean_gradients("data")),
        "scale_by_adam (in adam) comes before pmean_gradients: each device keeps",
    ),
    (
        lambda: g.chain(g.clip(1.0), g.scale_by_adam(), g.clip(0.1), rate()),
        "scale_by_adam comes before clip_2: what is clipped are updates",
    ),
    (
        lambda: g.chain(g.sgd(0.1), g.clip_by_global_norm(1.0)),
        "scale_by_learning_rate (in sgd) comes before clip_by_global_norm: what is "
        "clipped are steps",
    ),
    (
        lambda: g.chain(g.prodigy(), g.clip(1.0)),
        "prodigy comes before clip: what is clipped are steps",
    ),
    (
        lambda: g.chain(g.scale_by_adam(), rate(), g.add_decayed_weights(0.1)),
        "scale_by_learning_rate comes before add_decayed_weights: the decay is not",
    ),
    (
        lambda: g.chain(g.scale_by_schedule(jnp.sqrt), g.adam(0.1)),
        "scale_by_schedule comes before scale_by_adam (in adam), which divides",
    ),
    (
        lambda: g.chain(g.scale(-0.1), g.scale_by_rms()),
        "scale comes before scale_by_rms, which divides",
    ),
    (
        lambda: g.chain(g.adam(1e-3), rate()),
        "scale_by_learning_rate (in adam) changes the sign, and scale_by_learning_rate "
        "changes it back: parameters ascend. Leave out one of them, or use "
        "scale_by_schedule",
    ),
    (
        lambda: g.chain(g.madgrad(0.1), rate()),
        "scale_by_madgrad (in madgrad) changes the sign, and scale_by_learning_rate",
    ),
    (
        lambda: g.chain(rate(), g.scale(-1.0)),
        "scale_by_learning_rate changes the sign, and scale changes it back",
    ),
    (
        lambda: g.chain(g.pmean_gradients("data"), g.pmean_gradients(("x", "data"))),
        "pmean_gradients and pmean_gradients_2 average over the same devices",
    ),
    (
        lambda: g.chain(g.clip(1.0), unscaled(g.adam(0.1))),
        "clip comes before unscaled: it sees gradients that are still multiplied",
    ),
    (
        lambda: g.chain(watched(g.trace(0.9)), unscaled(g.sgd(0.1))),
        "watched comes before unscaled: it sees gradients",
    ),
    (
        lambda: g.chain(g.clip(1.0), g.dynamic_loss_scaling(g.adam(0.1))),
        "clip comes before dynamic_loss_scaling: it sees gradients",
    ),
    (
        lambda: g.named_chain(("step", g.sgd(0.1)), ("small", g.clip(1.0))),
        "named_chain: scale_by_learning_rate (in step) comes before clip (in small): "
        "what is clipped are steps, no gradients. Put clip (in small) first. If this "
        "order is meant: named_chain(..., deliberate=True).",
    ),
    (
        lambda: g.accumulate(watched(g.adam(0.1)), 4),
        "accumulate: accumulate is around watched: one NaN in a micro-batch leaves out "
        "the whole sum. Put watched around accumulate, or give skip=skip_not_finite. "
        "If this is meant, filter OrderWarning with Python's warnings.",
    ),
    (
        lambda: g.MultiSteps(g.chain(g.clip(1.0), watched(g.sgd(0.1))), 4),
        "accumulate is around watched",
    ),
    (
        lambda: g.accumulate(g.apply_if_finite(g.adam(0.1), 5), 4),
        "accumulate is around apply_if_finite",
    ),
    (
        lambda: g.guarded(g.dynamic_loss_scaling(g.adam(0.1))),
        "guarded is around dynamic_loss_scaling: it takes the overflows",
    ),
    (
        lambda: watched(unscaled(g.adam(0.1))),
        "watched is around unscaled: it takes the overflows",
    ),
    (
        lambda: watched(g.chain(g.pmean_gradients("data"), g.adam(0.1))),
        "watched is around pmean_gradients: each device judges its own gradient",
    ),
    # through wrappers and selections
    (
        lambda: g.chain(g.observe(g.compiled(g.sgd(0.1))), g.clip(1.0)),
        "scale_by_learning_rate (in observe) comes before clip",
    ),
    (
        lambda: g.chain(g.masked(rate(), {"w": True}), g.add_decayed_weights(0.1)),
        "scale_by_learning_rate (in masked) comes before add_decayed_weights",
    ),
    (
        lambda: g.chain(
            g.masked(g.scale_by_adam(), g.ndim_at_least(2)),
            g.masked(g.clip(1.0), g.ndim_at_least(2)),
        ),
        "scale_by_adam (in masked) comes before clip (in masked_2)",
    ),
    (
        lambda: g.chain(g.partition({"a": g.sgd(0.1)}, "a"), g.clip(1.0)),
        "scale_by_learning_rate (in partition) comes before clip",
    ),
    (
        lambda: g.chain(g.inject_hyperparams(g.sgd)(learning_rate=0.1), g.clip(1.0)),
        "scale_by_learning_rate (in inject_hyperparams) comes before clip",
    ),
]

RIGHT = [
    lambda: g.chain(
        g.pmean_gradients("data"),
        g.clip_by_global_norm(1.0),
        g.scale_by_adam(),
        g.add_decayed_weights(0.1),
        rate(),
    ),
    lambda: g.chain(g.add_decayed_weights(0.1), g.adam(1e-3)),  # an L2 penalty
    lambda: g.chain(g.adam(1e-3), g.scale_by_schedule(jnp.sqrt)),
    lambda: g.chain(g.adam(1e-3), g.reduce_on_plateau()),
    lambda: g.chain(g.scale_by_adam(), g.scale_by_schedule(jnp.sqrt), g.scale(-1.0)),
    lambda: g.chain(g.scale(-1.0), g.adam(1e-3)),  # ascends
    lambda: g.chain(g.adam(1e-3), g.scale(0.5)),
    lambda: g.chain(g.scale_by_adam(), g.clip_by_block_rms(1.0), rate()),
    lambda: g.chain(g.sgd(1.0), g.scale_by_backtracking_linesearch(5)),
    lambda: g.chain(rate(jnp.float32(0.1)), g.scale(jnp.float32(2.0))),
    lambda: g.chain(g.pmean_gradients("data"), g.pmean_gradients("model")),
    lambda: g.chain(g.pmean_gradients("data"), g.accumulate(g.adam(0.1), 4)),
    lambda: g.accumulate(g.chain(g.pmean_gradients("data"), g.adam(0.1)), 4),
    lambda: g.accumulate(g.accumulate(g.adam(0.1), 2), 4),
    lambda: g.accumulate(watched(g.adam(0.1)), 4, skip=g.skip_not_finite),
    lambda: g.accumulate(unscaled(watched(g.adam(0.1))), 4),
    lambda: watched(g.accumulate(g.chain(g.clip(1.0), g.adam(0.1)), 4)),
    lambda: watched(g.pmean_gradients("data"), axis_name="data"),
    lambda: unscaled(watched(g.chain(g.clip(1.0), g.adam(0.1)))),
    lambda: g.accumulate(g.dynamic_loss_scaling(g.guarded(g.adam(0.1))), 4),
    lambda: g.chain(g.pmean_gradients("data"), unscaled(g.adam(0.1))),
    # clips examples, which no other device has
    lambda: g.chain(
        g.differentially_private_aggregate(1.0, 0.1, key=0), g.pmean_gradients("data")
    ),
    # no leaf goes through both
    lambda: g.chain(
        g.masked(g.scale_by_adam(), g.ndim_at_least(2)),
        g.masked(g.clip(1.0), ~g.ndim_at_least(2)),
    ),
    lambda: g.partition({"a": unscaled(g.adam(0.1)), "b": unscaled(g.sgd(0.1))}, "a"),
    # what is measured is not applied
    lambda: g.chain(g.monitor({"rms": g.scale_by_rms()}), g.clip(1.0), g.sgd(0.1)),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[m[:60] for _, m in WRONG])
def test_wrong_order_is_told(make, message):
    _, told = made(make)
    assert len(told) == 1
    assert message in told[0]
    assert re.fullmatch(r"\w+: [^{}]+\. [^{}]+\. If this .*\.", told[0])


@pytest.mark.parametrize("make", RIGHT)
def test_right_order_is_not(make):
    assert made(make)[1] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: unscaled(g.chain(g.clip(1.0), unscaled(g.sgd(0.1)))),
        lambda: g.chain(unscaled(g.trace(0.9)), unscaled(g.sgd(0.1)), deliberate=True),
    ],
)
def test_two_loss_scales_are_an_error(make):
    match = r"(unscaled|chain): unscaled and unscaled(_2)? both divide by a loss scale"
    with pytest.raises(g.ArgumentError, match=match):
        made(make)


def test_catalogue_has_no_wrong_order():
    assert made(gradtx.testing.catalogue.__wrapped__)[1] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: g.adafactor(0.1, weight_decay_rate=0.1, momentum=0.9),
        lambda: g.lbfgs(0.1),
        lambda: g.rmsprop(0.1, momentum=0.9, weight_decay=0.1),
        lambda: g.dog(weight_decay=0.1),
        lambda: g.schedule_free_sgd(weight_decay=0.1),
        lambda: g.cocob(weight_decay=0.1),
        lambda: g.madgrad(0.1, weight_decay=0.1),
    ],
)
def test_optimizers_with_optional_parts_have_none(make):
    assert made(make)[1] == []


def test_every_pair_of_links_is_told_once():
    # of adam and adamw three things are wrong, of adam and clip two
    _, told = made(lambda: g.chain(g.adam(0.1), g.adamw(0.1), g.clip(1.0)))
    assert [
        re.findall(r"\(in (\w+)\)", m.split(":")[1].split(". ")[0]) for m in told
    ] == [
        ["adam", "adamw"],
        ["adam"],
        ["adamw"],
    ]


def test_order_inside_a_link_is_told_where_the_link_is_made():
    inner, told = made(lambda: g.chain(g.sgd(0.1), g.clip(1.0)))
    assert len(told) == 1

    @g.transformation
    def mine():
        return inner

    for around in (
        lambda: g.chain(inner, g.trace(0.9)),
        lambda: g.accumulate(g.observe(inner), 2),
        lambda: g.masked(inner, g.ndim_at_least(2)),
        mine,
    ):
        assert made(around)[1] == []
    assert "(in mine)" in made(lambda: g.chain(mine(), g.clip(1.0)))[1][0]


def test_deliberate_silences_one_chain():
    meant = lambda: g.chain(g.sgd(0.1), g.clip(1.0), deliberate=True)
    tx, told = made(meant)
    assert told == []
    assert repr(tx) == "chain(sgd(0.1), clip(1.0), deliberate=True)"
    assert g.build(json.loads(json.dumps(g.describe(tx)))) == tx
    named = [("a", g.sgd(0.1)), ("b", g.clip(1.0))]
    assert made(lambda: g.named_chain(*named, deliberate=True))[1] == []
    assert len(made(lambda: g.chain(meant(), g.clip(1.0)))[1]) == 1
    assert len(made(lambda: g.chain(g.chain(*tx.call.arguments["links"]), tx))[1]) == 2


def test_default_is_not_shown_and_old_descriptions_build():
    tx = g.chain(g.clip(1.0), g.sgd(0.1))
    assert repr(tx) == "chain(clip(1.0), sgd(0.1))"
    named = g.named_chain(("a", g.clip(1.0)))
    assert repr(named) == "named_chain(('a', clip(1.0)))"
    for one in (tx, named):
        data = g.describe(one)
        assert data["arguments"].pop("deliberate") is False
        assert g.build(data) == one


def test_warning_points_at_the_line_that_made_the_chain():
    data = g.describe(g.chain(g.sgd(0.1), g.clip(1.0), deliberate=True))
    del data["arguments"]["deliberate"]
    lines = []
    for make in (
        lambda: g.chain(g.sgd(0.1), g.clip(1.0)),
        lambda: g.MultiSteps(watched(g.sgd(0.1)), 2),
        lambda: g.build(data),
    ):
        with pytest.warns(OrderWarning) as caught:
            make()
        assert [w.filename for w in caught] == [__file__]
        lines.append(caught[0].lineno - make.__code__.co_firstlineno)
    assert lines == [0, 0, 0]


def test_pickle_does_not_tell_again():
    tx, told = made(lambda: g.chain(g.sgd(0.1), g.clip(1.0)))
    again, more = made(lambda: pickle.loads(pickle.dumps(tx)))
    assert again == tx
    assert (len(told), more) == (1, [])
    assert again.order == tx.order


def test_injected_factory_is_told_where_it_is_called():
    def mine(learning_rate):
        return g.chain(g.scale_by_learning_rate(learning_rate), g.clip(1.0))

    def make():
        return g.inject_hyperparams(mine)(learning_rate=0.1)

    tx, told = made(make)
    assert told
    params = jnp.ones(2)
    state, told = made(lambda: tx.init(params))
    assert told == []
    assert made(lambda: tx.update(params, state, params))[1] == []


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in gradtx.testing.catalogue()
        if name.startswith(("scale_by_", "clip_", "add_decayed", "adaptive_grad"))
    ],
)
def test_link_has_a_stage_or_a_reason(name):
    stage = gradtx.testing.catalogue()[name].traits.stage
    assert bool(stage) != (name in NO_STAGE)


def test_reasons_are_of_factories_that_exist():
    assert {f"gradtx.{name}" for name in NO_STAGE} <= set(_call.registered())


def test_stage_and_sign_are_not_inherited():
    tx = g.accumulate(g.clip(1.0), 2)
    assert tx.traits.stage == "accumulate"
    assert g.masked(g.clip(1.0), True).traits.stage == ""
    assert g.sgd(0.1).traits.negates is False
    assert g.scale_by_learning_rate(0.1).traits.negates
    assert not g.scale_by_learning_rate(0.1, flip_sign=False).traits.negates
    assert g.scale(-0.5).traits.stage == "rate"
    assert [p.name for p in tx.order] == ["accumulate", "clip"]


def test_a_factory_with_a_stage_is_one_part():
    @g.transformation(stage="clip")
    def both():
        return g.chain(g.clip(1.0), g.clip_by_global_norm(1.0))

    assert [part.name for part in both().order] == ["both"]
