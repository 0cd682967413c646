"""Names are the same everywhere, and tell what they name."""

import dataclasses
import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import telemetry
from gradtx.telemetry import METRICS, Histogram, Name, parse

PARAMS = {"a": {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}, "b": jnp.array([3.0, -4.0])}
STEPS = 5
GRADS = jax.tree.map(
    lambda p: jnp.stack([jnp.cos(p * i + 1) * (1 + i) for i in range(STEPS)]), PARAMS
)
CLIP_ADAM = gradtx.chain(gradtx.clip_by_global_norm(3.0), gradtx.adam(0.1))
TX = gradtx.observe(
    CLIP_ADAM,
    every=2,
    groups=gradtx.ndim_at_least(2),
    per_leaf=True,
    histograms=True,
    successive=True,
    window=3,
)

#: Names are a contract: dashboards and queries hold them.
_ROWS = ("", "/group/False", "/group/True", "/leaf/a/w", "/leaf/b")
_MU, _NU = "/field/adam.scale_by_adam.mu", "/field/adam.scale_by_adam.nu"
GOLDEN = [
    "updates",
    "learning_rate",
    *(f"gradient_norm{row}" for row in _ROWS),
    "gradient_norm_mean",
    "gradient_norm_variance",
    "clipped_fraction",
    "clipped_updates",
    "nonfinite_updates",
    "measured_update",
    *(f"update_norm{row}" for row in _ROWS),
    *(f"param_norm{row}" for row in _ROWS),
    *(f"update_to_param_ratio{row}" for row in _ROWS),
    *(f"gradient_nonfinite{row}" for row in _ROWS),
    *(f"update_nonfinite{row}" for row in _ROWS),
    *(f"param_nonfinite{row}" for row in _ROWS),
    "first_nonfinite",
    *(f"moment_norm{field}{row}" for field in (_MU, _NU) for row in _ROWS),
    *(f"moment_rms{field}{row}" for field in (_MU, _NU) for row in _ROWS),
    *(f"effective_learning_rate{row}" for row in _ROWS),
    *(f"effective_learning_rate_p10{row}" for row in _ROWS),
    *(f"effective_learning_rate_p90{row}" for row in _ROWS),
    *(f"effective_learning_rate_spread{row}" for row in _ROWS),
    "gradient_cosine",
    "gradient_variance",
    "gradient_noise_scale",
    *(f"gradient_histogram{row}" for row in _ROWS[:3]),
    *(f"update_histogram{row}" for row in _ROWS[:3]),
    *(f"param_histogram{row}" for row in _ROWS[:3]),
    *(f"moment_histogram{field}{row}" for field in (_MU, _NU) for row in _ROWS[:3]),
    *(f"effective_learning_rate_histogram{row}" for row in _ROWS[:3]),
]


def assert_equal(found, expected, rtol=0.0):
    """Compare two readings, with NaN where NaN is."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        got = found[name]
        if isinstance(value, Histogram):
            np.testing.assert_array_equal(got.counts, value.counts, name)
        elif isinstance(value, str) or np.asarray(value).dtype.kind == "U":
            np.testing.assert_array_equal(got, value, name)
        else:
            np.testing.assert_allclose(got, value, rtol=rtol, err_msg=name)


def at(found, *index):
    """Return a reading with leading axes at one place."""
    return {
        name: Histogram(x.counts[index], x.edges)
        if isinstance(x, Histogram)
        else x[index]
        for name, x in found.items()
    }


def one(i):
    return jax.tree.map(lambda g: g[i], GRADS)


@functools.cache
def loop() -> list[dict[str, Any]]:
    """Return what is read after each update of a loop."""
    state, made, update = TX.init(PARAMS), [], jax.jit(TX.update)
    for i in range(STEPS):
        _, state = update(one(i), state, PARAMS)
        made.append(telemetry.read(state))
    return made


def test_names_are_those_of_every_reading():
    assert telemetry.names(TX, PARAMS) == GOLDEN
    assert list(telemetry.read(TX.init(PARAMS))) == GOLDEN
    shapes = jax.eval_shape(lambda: PARAMS)
    assert telemetry.names(TX, shapes) == GOLDEN
    for found in loop():
        assert list(found) == GOLDEN


def test_every_name_is_of_a_metric_and_can_be_taken_apart():
    for name in GOLDEN:
        parts = parse(name)
        assert parts.metric in METRICS
        assert str(parts) == name
    part = parse("moment_rms/field/adam.scale_by_adam.nu/leaf/a/w")
    assert part == Name("moment_rms", "adam.scale_by_adam.nu", "", "a/w")
    assert {parse(name).leaf for name in GOLDEN} == {"", "a/w", "b"}
    assert {parse(name).group for name in GOLDEN} == {"", "True", "False"}


_word = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)
_path = st.lists(_word, min_size=1, max_size=3).map("/".join)


@hypothesis.given(
    metric=st.sampled_from(sorted(METRICS)),
    field=st.just("") | _word,
    row=st.tuples(st.sampled_from(["group", "leaf"]), st.just("") | _path),
)
def test_a_name_survives_being_written_and_read(metric, field, row):
    name = Name(metric, field, **{row[0]: row[1]})
    assert parse(str(name)) == name


@hypothesis.given(st.text())
def test_a_name_of_the_users_stays_whole(name):
    parts = parse(name)
    assert str(parts) == name
    if name.split("/")[0] not in METRICS:
        assert parts == Name(name)


def test_types_are_those_of_python():
    for name, value in loop()[-1].items():
        metric = METRICS[parse(name).metric]
        kinds = {"gauge": (int, float), "counter": int, "text": str}
        assert isinstance(value, kinds.get(metric.kind, Histogram)), name


def test_states_that_a_scan_stacks_read_as_arrays_of_the_same_values():
    def step(state, grads):
        _, state = TX.update(grads, state, PARAMS)
        return state, state

    last, states = jax.jit(lambda s, g: jax.lax.scan(step, s, g))(
        TX.init(PARAMS), GRADS
    )
    found = telemetry.read(states)
    for i, expected in enumerate(loop()):
        # another program may fuse an update in another way: 1 ulp of Adam's quotient
        assert_equal(at(found, i), expected, 1e-6)
    assert_equal(telemetry.read(last), at(found, -1))


def test_a_sweep_over_learning_rates_reads_as_an_array():
    rates = jnp.array([0.1, 0.5, 2.0])

    def make(rate):
        return gradtx.observe(gradtx.sgd(rate), every=1, per_leaf=True, histograms=True)

    def run(rate):
        tx = make(rate)
        _, state = tx.update(one(0), tx.init(PARAMS), PARAMS)
        return state

    found = telemetry.read(jax.jit(jax.vmap(run))(rates))
    single = jax.jit(run)
    for i, rate in enumerate(rates):
        assert_equal(at(found, i), telemetry.read(single(rate)), 1e-6)
    np.testing.assert_array_equal(found["learning_rate"], rates)
    np.testing.assert_allclose(found["effective_learning_rate"], rates, rtol=1e-6)


def test_collecting_keeps_arrays_where_they_are():
    state = TX.init(PARAMS)
    collected = telemetry.collect(state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(collected))
    assert_equal(telemetry.named(collected), telemetry.read(state))
    traced = jax.eval_shape(telemetry.collect, state)
    assert jax.tree.structure(traced) == jax.tree.structure(collected)


def test_single_links_are_read_without_an_observer():
    state = CLIP_ADAM.init(PARAMS)
    _, state = CLIP_ADAM.update(one(0), state, PARAMS)
    found = telemetry.read(state)
    assert list(found) == ["learning_rate", "gradient_norm"]
    assert found["gradient_norm"] == pytest.approx(loop()[0]["gradient_norm"], rel=1e-6)
    tx = gradtx.apply_if_finite(gradtx.sgd(0.5), 3)
    nan = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
    _, state = tx.update(nan, tx.init(PARAMS), PARAMS)
    assert telemetry.read(state) == {"learning_rate": 0.5, "skipped_updates": 1}


def test_two_rates_are_told_apart_by_their_fields():
    state = (gradtx.sgd(0.5).init(PARAMS), gradtx.adam(0.25).init(PARAMS))
    found = telemetry.read(state)
    assert sorted(found.values()) == [0.25, 0.5]
    assert all(parse(name).field for name in found)


def _fields_of(tx, metric):
    found = map(parse, telemetry.names(tx, {"w": jnp.ones((4, 4)), "b": jnp.ones(3)}))
    return [name.field for name in found if name.metric == metric]


def test_fields_of_rates_are_called_as_those_of_moments_beside_them():
    both = {"a": gradtx.sgd(0.1, momentum=0.9), "b": gradtx.adam(0.2)}
    tx = gradtx.partition(both, {"w": "a", "b": "b"})
    rate = "scale_by_learning_rate.step_size"
    plain = [f"inner_states.{label}.inner_state.{rate}" for label in "ab"]
    observed = gradtx.observe(tx)
    assert _fields_of(tx, "learning_rate") == plain
    assert _fields_of(observed, "learning_rate") == plain
    assert _fields_of(gradtx.accumulate(observed, 2), "learning_rate") == plain
    moments = _fields_of(observed, "moment_rms")
    assert moments[0] == plain[0].replace(rate, "trace.trace")
    two = gradtx.chain(gradtx.observe(gradtx.clip(1.0)), observed)
    fronted = [f"observe_2.{path}" for path in plain]
    assert _fields_of(two, "learning_rate") == fronted
    assert _fields_of(two, "moment_rms")[0] == f"observe_2.{moments[0]}"
    nested = gradtx.observe(gradtx.chain(observed))
    assert _fields_of(nested, "learning_rate") == [
        f"inner_state.observe.{path}" for path in plain
    ]


def test_fields_that_would_be_called_the_same_keep_their_paths():
    rate = gradtx.scale_by_learning_rate(0.1, flip_sign=False)
    tx = gradtx.chain(gradtx.observe(gradtx.chain(rate)), rate)
    assert _fields_of(tx, "learning_rate") == [
        "observe.inner_state.scale_by_learning_rate.step_size",
        "scale_by_learning_rate.step_size",
    ]


def test_nothing_to_read_is_an_error():
    for state in ((), {}, optax.EmptyState(), gradtx.scale(0.5).init(PARAMS), PARAMS):
        with pytest.raises(gradtx.ArgumentError, match=r"nothing to read.*observe"):
            telemetry.read(state)


def test_reading_inside_jit_says_what_to_return():
    with pytest.raises(gradtx.ArgumentError, match=r"got tracers.*collect.*named"):
        jax.jit(telemetry.read)(gradtx.adam(0.1).init(PARAMS))


def test_arguments_in_the_wrong_order_are_named():
    with pytest.raises(gradtx.ArgumentError, match="expected a transformation"):
        telemetry.names(PARAMS, gradtx.adam(0.1))  # pyright: ignore[reportArgumentType]


def test_bins_hold_what_lies_between_their_edges():
    edges = telemetry.bin_edges()
    assert len(edges) == 64 * 8 + 3
    assert edges[0] == 0
    assert edges[1] == 2.0**-40
    assert edges[-2] == 2.0**24
    assert np.all(np.diff(edges) > 0)
    x = edges[:-1].astype(np.float32)  # at lower edges, and just below upper ones
    below = np.nextafter(edges[1:-1].astype(np.float32), np.float32(0))
    tx = gradtx.observe(gradtx.scale(1.0), every=1, histograms=True)
    grads = {"x": jnp.asarray(np.concatenate([x, below, -x]))}
    _, state = jax.jit(tx.update)(grads, tx.init(grads), grads)
    found = telemetry.read(state)
    for name in ("gradient_histogram", "update_histogram", "param_histogram"):
        counts = found[name].counts
        np.testing.assert_array_equal(counts, [3] * (len(x) - 1) + [2])


@hypothesis.given(
    st.lists(st.floats(0.0, 2.0**23), min_size=1, max_size=50),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_a_quantile_lies_in_the_bin_of_the_ranked_number(values, share):
    edges = telemetry.bin_edges()
    counts, _ = np.histogram(values, edges)
    found = Histogram(counts.astype(float), edges).quantile(share)
    rank = max(int(np.ceil(share * len(values) - 1e-9)), 1)
    exact = np.sort(values)[rank - 1]
    place = np.searchsorted(edges, exact, side="right") - 1
    if share:  # below which nothing lies
        assert edges[place] <= found <= edges[place + 1]


# What it costs


def test_cost_counts_names_and_bytes():
    found = telemetry.cost(TX, PARAMS)
    assert found.metrics == len(GOLDEN)
    assert found.every == 2
    parts = [parse(name) for name in GOLDEN]
    for metric, (whole, groups, leaves, of_fields) in found.series.items():
        mine = [p for p in parts if p.metric == metric]
        assert whole == sum(not p.group and not p.leaf for p in mine)
        assert groups == sum(bool(p.group) for p in mine)
        assert leaves == sum(bool(p.leaf) for p in mine)
        assert of_fields == sum(bool(p.field) for p in mine)
    assert sum(sum(x[:3]) for x in found.series.values()) == len(GOLDEN)
    state = TX.init(PARAMS)
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    assert found.state_bytes == size(state) - size(state.inner_state)
    assert str(found.metrics) in str(found)
    assert dataclasses.is_dataclass(found)


def test_cost_allocates_nothing_and_finds_observers_anywhere():
    shapes = {"w": jax.ShapeDtypeStruct((100_000, 100_000), jnp.float32)}
    tx = gradtx.accumulate(gradtx.observe(gradtx.sgd(0.1), every=7), every=2)
    found = telemetry.cost(tx, shapes)
    assert found.every == 7
    assert found.metrics == len(telemetry.names(tx, shapes))
    assert found.state_bytes < 1000
    assert found.pass_bytes >= 2 * 4 * 10**10


def test_cost_of_what_does_not_observe_is_an_error():
    with pytest.raises(gradtx.ArgumentError, match=r"cost: nothing.*observe"):
        telemetry.cost(gradtx.adam(0.1), PARAMS)
