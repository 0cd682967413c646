"""What is explained of each leaf is what updates do to it."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as g
from gradtx import testing
from gradtx.telemetry._explain import explain
from gradtx.telemetry._table import broken_call

CATALOGUE = testing.catalogue()
KERNEL = g.path_matches("kernel")
LABELS = g.label_paths({"^embed": "still", "^enc": "slow"}, default="fast")


def _params(seed=0):
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    make = lambda *shape: jax.random.normal(next(keys), shape)
    return {
        "embed": make(6, 4),
        "enc": {"kernel": make(4, 3), "bias": make(3)},
        "head": {"kernel": make(3, 2), "bias": make(2)},
    }


PARAMS = _params()
PATHS = [leaf.path for leaf in explain(g.scale(1.0), PARAMS).leaves]

#: Optimizers by their learning rate. All of their updates are proportional to it.
MADE = {
    "adamw with a mask": lambda r: g.adamw(r, weight_decay=0.1, mask=KERNEL),
    "adamw with a tree": lambda r: g.adamw(
        r,
        weight_decay=0.1,
        mask={"embed": False, "enc": True, "head": {"kernel": True, "bias": False}},
    ),
    "sgd with an L2 penalty": lambda r: g.chain(
        g.add_decayed_weights(0.1, KERNEL), g.sgd(r, momentum=0.9)
    ),
    "sgd with a decay": lambda r: g.chain(g.add_decayed_weights(0.1), g.sgd(r)),
    "groups": lambda r: g.partition(
        {
            "still": g.set_to_zero(),
            "slow": g.adamw(r, weight_decay=0.1, mask=KERNEL),
            "fast": g.sgd(0.5),
        },
        LABELS,
    ),
    "groups in groups": lambda r: g.partition(
        {
            True: g.multi_transform(
                {"a": g.sgd(r), "b": g.lion(2 * r, weight_decay=0.2)},
                {"embed": "a", "enc": "b", "head": "a"},
            ),
            False: g.set_to_zero(),
        },
        g.ndim_at_least(2),
    ),
    "lamb": lambda r: g.lamb(r, weight_decay=0.1, mask=KERNEL),
    "muon": lambda r: g.muon(r, weight_decay=0.1, adam_weight_decay=0.2),
    "freeze last": lambda r: g.chain(g.adamw(r, weight_decay=0.1), g.freeze(KERNEL)),
    "freeze first": lambda r: g.chain(g.freeze(KERNEL), g.adam(r)),
    "freeze before a decay": lambda r: g.chain(
        g.freeze(KERNEL), g.adamw(r, weight_decay=0.1)
    ),
    "selective": lambda r: g.selective_transform(
        g.adamw(r, weight_decay=0.1), freeze_mask=g.path_matches("bias")
    ),
    "masked links": lambda r: g.chain(
        g.clip_by_global_norm(1.0),
        g.masked(g.add_decayed_weights(0.3), lambda p: KERNEL(p)),
        g.masked(g.scale(0.5), g.path_matches("bias")),
        g.scale_by_learning_rate(r),
    ),
    "accumulated": lambda r: g.accumulate(
        g.chain(g.adamw(r, weight_decay=0.1, mask=KERNEL), g.freeze(g.path_matches("enc"))),
        every=2,
    ),
    "guarded": lambda r: g.apply_if_finite(g.adamw(r, weight_decay=0.1, mask=KERNEL), 3),
    "two decays": lambda r: g.chain(
        g.scale_by_adam(),
        g.add_decayed_weights(0.1),
        g.scale(0.5),
        g.add_decayed_weights(0.2, KERNEL),
        g.scale(-r),
    ),
    "decay of its own": lambda r: g.novograd(r, weight_decay=0.1),
    "flat": lambda r: g.flatten(g.adamw(r, weight_decay=0.1, mask=g.ndim_at_least(2))),
    "named": lambda r: g.named_chain(("one", g.adam(r)), ("two", g.freeze(KERNEL))),
    "scheduled": lambda r: g.adamw(g.linear_schedule(r, 0.0, 9), weight_decay=0.1),
}  # fmt: skip


@functools.cache
def _tx(name, rate):
    """Return the same transformation to all tests: it is compiled once."""
    return MADE[name](rate)


def _moved(tx, params, grads, calls=4):
    """Return the sum of the updates of a few calls at fixed parameters, by path."""
    state, total = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    for _ in range(calls):
        updates, state = tx.update(grads, state, params)
        total = jax.tree.map(jnp.add, total, updates)
    leaves = jax.tree_util.tree_leaves_with_path(total)
    return {g.core.slashed(path): np.asarray(x) for path, x in leaves}


def _same(a, b):
    return np.array_equal(a, b)


@pytest.mark.parametrize("name", MADE)
def test_frozen_leaves_and_no_others_stand_still(name):
    tx = _tx(name, 0.01)
    moved = _moved(tx, PARAMS, _params(1))
    for leaf in explain(tx, PARAMS).leaves:
        assert leaf.frozen == (not np.any(moved[leaf.path])), leaf.path


@pytest.mark.parametrize("name", MADE)
def test_decay_acts_where_it_says_and_as_much(name):
    tx, other = _tx(name, 0.01), _params(2)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    moved, moved_other = _moved(tx, PARAMS, zeros), _moved(tx, other, zeros)
    first = _moved(tx, PARAMS, zeros, calls=2 if name == "accumulated" else 1)
    params = dict(zip(PATHS, jax.tree.leaves(PARAMS), strict=True))
    for leaf in explain(tx, PARAMS).leaves:
        depends = not _same(moved[leaf.path], moved_other[leaf.path])
        assert depends == (leaf.weight_decay != 0.0), leaf.path
        if leaf.coupled is False:
            expected = -(leaf.shrinkage or 0.0) * params[leaf.path]
            np.testing.assert_allclose(first[leaf.path], expected, rtol=1e-5)
        else:
            assert leaf.weight_decay > 0
            assert leaf.shrinkage is None


@pytest.mark.parametrize("name", MADE)
def test_learning_rate_scales_the_update(name):
    one, two = _tx(name, 0.01), _tx(name, 0.03)
    before, after = explain(one, PARAMS), explain(two, PARAMS)
    moved, moved_more = (_moved(tx, PARAMS, _params(1)) for tx in (one, two))
    for leaf in before.leaves:
        if leaf.frozen:
            assert leaf.learning_rate is None
            continue
        more, rate = after[leaf.path].learning_rate, leaf.learning_rate
        assert more
        assert rate
        np.testing.assert_allclose(
            moved_more[leaf.path], more / rate * moved[leaf.path], rtol=2e-5, atol=1e-7
        )


def test_learning_rate_of_plain_descent_is_the_step():
    tx = g.partition(
        {"still": g.set_to_zero(), "slow": g.sgd(0.1), "fast": g.sgd(0.7)}, LABELS
    )
    grads = _params(1)
    moved = _moved(tx, PARAMS, grads, calls=1)
    given = dict(zip(PATHS, jax.tree.leaves(grads), strict=True))
    for leaf in explain(tx, PARAMS).leaves:
        step = -(leaf.learning_rate or 0.0) * given[leaf.path]
        np.testing.assert_allclose(moved[leaf.path], step, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_factory_is_explained(name):
    tx = CATALOGUE[name]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMS)
    found = explain(tx, shapes)
    assert found.optimizer == repr(tx)
    assert [leaf.path for leaf in found.leaves] == PATHS
    assert not any(leaf.opaque for leaf in found.leaves)
    frozen = {leaf.path for leaf in found.leaves if leaf.frozen}
    bias = {"enc/bias", "head/bias"}
    still = {"set_to_zero": {*PATHS}, "freeze": bias, "selective_transform": bias}
    assert frozen == still.get(name, set())
    rated = {"learning_rate", "step_size", "step_size_fn", "max_learning_rate"}
    if rated & tx.call.arguments.keys():
        bare = ("scale_by_polyak", "scale_by_zoom", "scale_by_backtracking")
        assert name.startswith(bare) or all(
            leaf.learning_rate for leaf in found.leaves if not leaf.frozen
        )
    assert found == explain(tx, shapes)
    assert str(found)


def test_links_are_in_order_and_as_called():
    tx = g.chain(g.clip(1.0), g.adamw(1e-3, b1=0.8, mask=KERNEL))
    found = explain(tx, PARAMS)
    adam, rate = "scale_by_adam(0.8)", "scale_by_learning_rate(0.001)"
    assert found["enc/bias"].links == ("clip(1.0)", adam, rate)
    decay = "add_decayed_weights(0.0001)"
    assert found["enc/kernel"].links == ("clip(1.0)", adam, decay, rate)


def test_schedules_are_read_at_step_0():
    schedule = g.warmup_cosine_decay_schedule(0.25, 1.0, 10, 100)
    leaf = explain(g.sgd(schedule), PARAMS)["embed"]
    assert (leaf.learning_rate, leaf.schedules) == (0.25, (repr(schedule),))
    falling = lambda step: -0.5 / (1.0 + step.astype(float))
    leaf = explain(g.scale_by_schedule(falling), PARAMS)["embed"]
    assert leaf.learning_rate == 0.5
    assert "0.25 at step 0" in str(explain(g.sgd(schedule), PARAMS))


def test_groups_are_told_and_nested_ones_joined():
    found = explain(MADE["groups in groups"](0.01), PARAMS)
    groups = {leaf.path: leaf.group for leaf in found.leaves}
    assert groups == {
        "embed": "True/a",
        "enc/bias": "False",
        "enc/kernel": "True/b",
        "head/bias": "False",
        "head/kernel": "True/a",
    }


def test_one_transformation_may_serve_two_groups():
    tx = g.sgd(0.1)
    found = explain(g.partition({"a": tx, "b": tx}, {**dict.fromkeys(PARAMS, "a"), "head": "b"}), PARAMS)  # fmt: skip
    assert (found["embed"].group, found["head/bias"].group) == ("a", "b")


def test_wrappers_are_around_their_links():
    tx = g.apply_if_finite(g.accumulate(g.sgd(0.1), every=2), 5)
    (link,) = explain(tx, PARAMS)["embed"].links
    assert link == (
        "scale_by_learning_rate(0.1) inside accumulate(every=2) "
        "inside apply_if_finite(max_consecutive_errors=5)"
    )
    shown = str(explain(g.accumulate(g.sgd(0.1, momentum=0.9), 2), PARAMS))
    inside = "[trace(0.9) → scale_by_learning_rate(0.1)]"
    assert f"(1) inside accumulate(every=2) {inside}" in shown


def test_second_optimizer_of_a_wrapper_gives_no_learning_rate():
    leaf = explain(CATALOGUE["sam"], PARAMS)["embed"]
    assert leaf.learning_rate == 0.1
    assert leaf.links[-1].endswith("inside sam() as adv_optimizer")


def test_two_sets_of_parameters():
    pair = g.LookaheadParams(PARAMS, PARAMS)
    tx = g.lookahead(MADE["groups"](0.01), 5, 0.5)
    for params in (pair, PARAMS):
        found = explain(tx, params)
        ends = {leaf.path.split("/")[-1]: leaf.group for leaf in found.leaves}
        assert ends["embed"] == "still"


def test_leaf_that_becomes_two_is_one():
    params = {"w": jnp.ones(2, complex), "x": jnp.ones(2)}
    tx = g.split_real_and_imaginary(g.chain(g.freeze(g.path_matches("x")), g.sgd(0.1)))
    found = explain(tx, params)
    assert found["w"].learning_rate == 0.1
    assert len(found["w"].links) == 1
    assert found["x"].frozen


def test_condition_makes_freezing_unsure():
    tx = g.conditionally_transform(g.set_to_zero(), g.constant_schedule(0.0))
    assert not explain(tx, PARAMS)["embed"].frozen
    assert np.any(_moved(tx, PARAMS, _params(1))["embed"])


def test_opaque_links_are_listed_as_opaque(lenient):
    tx = g.chain(
        optax.masked(optax.adam(0.1), dict.fromkeys(PARAMS, True)),
        g.stateless(lambda updates, params: updates),
        g.GradientTransformation(*g.scale(2.0)),
        g.freeze(KERNEL),
    )
    found = explain(tx, PARAMS)
    bias, kernel = found["enc/bias"], found["enc/kernel"]
    assert bias.opaque
    assert bias.links[0] == "masked (opaque)"
    assert len(bias.links) == 3
    assert bias.learning_rate is None
    assert kernel.frozen
    assert not found.notes
    assert not explain(g.chain(g.freeze(KERNEL), optax.sgd(0.1)), PARAMS)[
        "enc/kernel"
    ].frozen


def test_patterns_that_match_nothing_are_named():
    tx = g.partition(
        {
            "a": g.adamw(0.1, mask=g.path_matches("kernel") & ~g.path_matches("norm")),
            "b": g.chain(g.sgd(0.1), g.freeze(g.path_matches("^head"))),
        },
        g.label_paths({"enc": "a", "decoder": "a"}, default="b"),
    )
    assert explain(tx, PARAMS).notes == (
        "'decoder' matched nothing",
        "'norm' matched nothing",
    )
    tx = g.selective_transform(g.sgd(0.1), freeze_mask=g.path_matches("encoder"))
    assert explain(tx, PARAMS).notes == ("'encoder' matched nothing",)
    assert "note: 'encoder' matched nothing" in str(explain(tx, PARAMS))


def test_columns_that_say_nothing_are_left_out():
    header = str(explain(g.sgd(0.1), PARAMS)).splitlines()[2].split()
    assert header == ["leaf", "shape", "dtype", "learning", "rate", "links"]
    assert "group" in str(explain(MADE["groups"](0.01), PARAMS))
    assert "weight decay" in str(explain(g.adamw(0.01), PARAMS))


def test_long_optimizers_and_links_are_broken():
    schedule = g.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)
    inner = g.chain(g.clip_by_global_norm(1.0), g.adamw(schedule, weight_decay=0.1))
    tx = g.observe(g.accumulate(inner, every=4), every=10, per_leaf=True)
    shown = str(explain(tx, PARAMS))
    top, _, below = shown.split("\n\n")
    assert max(map(len, shown.splitlines())) <= 88
    assert top.splitlines()[:3] == ["observe(", "  accumulate(", "    chain("]
    assert eval(top, {**vars(g)}) == tx, "it is still the call"
    joined = " ".join(line.strip() for line in below.splitlines())
    assert joined == (
        "(1) inside accumulate(every=4) inside observe(every=10, per_leaf=True) "
        "[clip_by_global_norm(1.0) → scale_by_adam() → add_decayed_weights(0.1) → "
        "scale_by_learning_rate(warmup_cosine_decay_schedule(0.0, 0.001, 10, 100))]"
    )


def test_brackets_in_strings_break_no_call():
    text = f"f('(,', \"it's [\", x={{'a': (1, 2)}}) & ~g('{'y' * 60}', [1, 2, 3])"
    lines = broken_call(text).splitlines()
    assert lines[0] == "f('(,', \"it's [\", x={'a': (1, 2)}) & ~g("
    assert [line.strip() for line in lines[1:]] == [f"'{'y' * 60}',", "[1, 2, 3],", ")"]
    assert broken_call("f((" + "x" * 90) == "f((" + "x" * 90


def test_leaves_that_go_uphill_are_named():
    (note,) = explain(g.masked(g.adam(0.1), g.path_matches("enc")), PARAMS).notes
    assert note.startswith(
        "no learning rate acts on 'embed', 'head/bias', 'head/kernel'"
    )
    tx = g.chain(g.scale_by_adam(), g.scale(0.1))
    found = explain(tx, PARAMS)
    assert note.endswith("Freeze them, or give them a learning rate")
    assert found["embed"].learning_rate == -0.1
    assert found.notes[0].endswith("and 2 more leaves is negative: it goes uphill")
    assert explain(g.cocob(), PARAMS).notes == ()


def test_leaf_that_is_frozen_and_then_decays_is_named():
    (note,) = explain(MADE["freeze before a decay"](0.1), PARAMS).notes
    assert "'enc/kernel', 'head/kernel': set to zero, then" in note
    assert "add_decayed_weights" in note


def test_integer_leaves_do_not_move():
    leaf = explain(g.adam(0.1), {"w": jnp.ones(2), "n": jnp.arange(3)})["n"]
    assert leaf.frozen
    assert leaf.dtype == "int32"


def test_packed_parameters_are_explained_by_leaf():
    tx = MADE["groups"](0.01)
    assert explain(tx, g.pack(PARAMS)) == explain(tx, PARAMS)


def test_is_plain_data_and_a_table():
    found = explain(MADE["groups"](0.01), PARAMS)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["leaves"][0]["path"] == "embed"
    assert data["leaves"][0]["frozen"] is True
    lines = str(found).splitlines()
    header = next(line for line in lines if line.startswith("leaf "))
    row = next(line for line in lines if line.startswith("embed"))
    assert row[header.index("group") :].startswith("still")
    assert row[header.index("learning rate") :].startswith("frozen")
    assert "<table>" in found._repr_html_()
    with pytest.raises(KeyError, match="no leaf has the path 'wte'"):
        found["wte"]
    assert str(explain(g.adam(0.1), {}))


def test_bare_array_is_one_leaf():
    (leaf,) = explain(g.adam(0.1), jnp.ones(3)).leaves
    assert (leaf.path, leaf.learning_rate) == ("params", 0.1)
