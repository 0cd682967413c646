"""Differences between optimizers have a path, both values and a kind."""

import pytest

import gradtx
from gradtx.checkpoint._changes import (
    Change,
    argument_names,
    optimizer_changes,
    shown,
)

ADAM = gradtx.adam(1e-3)
MATRICES = gradtx.ndim_at_least(2)
COSINE = gradtx.cosine_decay_schedule(1e-3, 100)


def changes(then, now):
    """Return what differs between two optimizers, as text."""
    described = (gradtx.describe(tx, opaque=True) for tx in (then, now))
    return [str(change) for change in optimizer_changes(*described)]


def partition(rate, **groups):
    made = groups or {"m": gradtx.adamw(1e-3), "v": gradtx.sgd(rate)}
    return gradtx.partition(made, gradtx.label_paths({"out": "m"}, "v"))


@pytest.mark.parametrize(
    ("then", "now", "wanted"),
    [
        (ADAM, gradtx.adam(1e-3), []),
        (ADAM, gradtx.adam(1e-3, b1=0.8), ["hyperparameter b1: 0.9 -> 0.8"]),
        (
            gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)),
            gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.6)),
            ["hyperparameter trace_2.decay: 0.5 -> 0.6"],
        ),
        (
            partition(0.1),
            partition(0.2),
            ["hyperparameter transforms.v.learning_rate: 0.1 -> 0.2"],
        ),
        (
            gradtx.accumulate(ADAM, every=2),
            gradtx.accumulate(gradtx.adam(1e-2), every=4),
            [
                "hyperparameter inner.learning_rate: 0.001 -> 0.01",
                "hyperparameter every: 2 -> 4",
            ],
        ),
        (
            gradtx.adam(COSINE),
            gradtx.adam(gradtx.cosine_decay_schedule(1e-3, 10)),
            ["hyperparameter learning_rate.decay_steps: 100 -> 10"],
        ),
        (
            gradtx.chain(gradtx.zero_nans(), ADAM),
            gradtx.chain(
                gradtx.zero_nans(), gradtx.accumulate(gradtx.adam(0.1), every=2)
            ),
            [
                "optimizer links: zero_nans, adam -> zero_nans, accumulate",
                "hyperparameter accumulate.inner.learning_rate: 0.001 -> 0.1",
            ],
        ),
        (
            gradtx.chain(gradtx.zero_nans(), ADAM),
            gradtx.chain(ADAM, gradtx.zero_nans()),
            ["optimizer links: zero_nans, adam -> adam, zero_nans"],
        ),
        (
            gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)),
            gradtx.named_chain(("a", gradtx.trace(0.5)), ("b", gradtx.trace(0.9))),
            ["optimizer links: trace, trace_2 -> a, b"],
        ),
        (
            gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5)),
            gradtx.named_chain(("a", gradtx.trace(0.9)), ("b", gradtx.trace(0.6))),
            [
                "optimizer links: trace, trace_2 -> a, b",
                "hyperparameter b.decay: 0.5 -> 0.6",
            ],
        ),
        (
            gradtx.observe(ADAM),
            gradtx.adam(1e-2),
            [
                "optimizer: observe(adam(0.001)) -> adam(0.01)",
                "hyperparameter inner.learning_rate: 0.001 -> 0.01",
            ],
        ),
        (
            gradtx.adamw(1e-3, mask=MATRICES),
            gradtx.adamw(1e-3, mask=gradtx.ndim_at_least(1)),
            ["hyperparameter mask.ndim: 2 -> 1"],
        ),
        (
            gradtx.adamw(1e-3, mask=MATRICES),
            gradtx.adamw(1e-3),
            ["hyperparameter mask: ndim_at_least(2) -> null"],
        ),
    ],
)
def test_each_difference_is_told_once(then, now, wanted):
    assert changes(then, now) == wanted


def test_a_group_that_comes_or_goes_is_another_optimizer():
    then = partition(0.1)
    now = partition(0.1, m=gradtx.adamw(1e-3), v=gradtx.sgd(0.1), x=ADAM)
    assert changes(then, now) == ["optimizer transforms: m, v -> m, v, x"]


def test_a_function_is_opaque_and_never_known_to_be_the_same():
    mask = lambda params: params
    (text,) = changes(gradtx.adamw(1e-3, mask=mask), gradtx.adamw(1e-3, mask=mask))
    assert text.startswith("opaque mask: <")
    assert text.endswith("then and now")


def test_the_order_of_changes_is_that_of_the_calls():
    then = gradtx.adamw(1e-3, b1=0.8, weight_decay=0.1)
    now = gradtx.adamw(1e-2, b1=0.9, weight_decay=0.2)
    paths = [text.split(": ")[0].split()[-1] for text in changes(then, now)]
    assert paths == ["learning_rate", "b1", "weight_decay"]


def test_arguments_have_the_names_that_hyperparameters_gives():
    for tx in (
        ADAM,
        gradtx.chain(gradtx.clip(1.0), gradtx.adamw(COSINE, mask=MATRICES)),
        gradtx.guarded(gradtx.accumulate(ADAM, every=2)),
        partition(0.1),
        gradtx.named_chain(("a", gradtx.clip(1.0)), ("b", gradtx.chain(ADAM))),
    ):
        names = set(argument_names(gradtx.describe(tx)))
        assert names >= set(gradtx.hyperparameters(tx))
        schedules = {name for name in names if "learning_rate." in name}
        masks = {name for name in names if "mask." in name or "param_labels." in name}
        assert names - schedules - masks == set(gradtx.hyperparameters(tx))


def test_an_order_that_was_warned_of_is_not_warned_of_again():
    links = gradtx.clip(1.0), gradtx.accumulate(ADAM, every=2)
    with pytest.warns(gradtx.OrderWarning):
        tx = gradtx.chain(*links)
    assert changes(tx, tx) == []
    assert "clip(1.0)" in changes(tx, ADAM)[0]


def test_lines_are_cut_off_after_twenty():
    many = [Change("leaf", f"w{n}", "a", "b") for n in range(23)]
    lines = shown(many).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  and 3 more"
    assert shown(many[:20]).splitlines()[-1] == "  leaf w19: a -> b"


def test_a_long_call_is_shortened():
    links = [gradtx.trace(n / 100) for n in range(50)]
    (text, *_) = changes(gradtx.chain(*links), ADAM)
    assert "..." in text
    assert len(text) < 400
