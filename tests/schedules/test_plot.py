"""A picture of schedules has their values, their names and their bends."""

import itertools
import sys
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import gradtx as g
from gradtx.core._drawing import spread
from gradtx.schedules import plot

WARM = g.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)


def _texts(ax):
    return [text.get_text() for text in ax.texts]


def _overlap(texts):
    boxes = [text.get_window_extent() for text in texts]
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_lines_have_the_values():
    ax = plot(WARM, 2e-4, steps=500)
    curve, _, flat, _ = ax.lines[:4]
    at = np.arange(501)
    np.testing.assert_array_equal(curve.get_xdata(), at)
    np.testing.assert_allclose(curve.get_ydata(), WARM(jnp.asarray(at)), rtol=1e-6)
    np.testing.assert_allclose(flat.get_ydata(), np.full(501, 2e-4), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step (updates)", "value")


@pytest.mark.parametrize(
    ("schedule", "bends"),
    [
        (WARM, [100]),
        (g.piecewise_constant_schedule(1.0, {300: 0.5, 600: 0.1}), [300, 600]),
        (g.linear_schedule(1.0, 0.0, 700), [700]),
        (g.linear_schedule(1.0, 0.0, 700, 50), [50, 750]),
        (g.exponential_decay(1.0, 10, 0.5), []),
        (g.cosine_decay_schedule(1.0, 1000), []),
        (g.constant_schedule(0.1), []),
        (g.join_schedules([g.constant_schedule(1.0), g.constant_schedule(0.5)], [40]), [40]),
    ],
)  # fmt: skip
def test_bends_are_marked_at_their_steps(schedule, bends):
    ax = plot(schedule, steps=1000)
    assert ax.lines[1].get_xdata().tolist() == bends
    steps = [line.get_xdata()[0] for line in ax.lines[2:]]
    assert steps == bends
    assert _texts(ax)[1:] == [str(step) for step in bends]


@pytest.mark.parametrize("steps", [100_000, 300_003])
def test_bends_of_long_schedules_are_exact(steps):
    warm = g.warmup_cosine_decay_schedule(0.0, 1e-3, 12_345, steps)
    ax = plot(warm, steps=steps)
    assert len(ax.lines[0].get_xdata()) < 20_000
    assert ax.lines[1].get_xdata().tolist() == [12_345]
    assert _texts(ax)[-1] == "12,345"


def test_names_are_at_the_ends_and_apart():
    many = [g.cosine_decay_schedule(k / 10, 100) for k in range(1, 9)]
    ax = plot(*many, steps=100)
    assert _texts(ax) == [f"init_value={k / 10}" for k in range(1, 9)]
    ax.figure.draw_without_rendering()
    assert not _overlap(ax.texts)
    right = ax.get_window_extent()
    for text, line in zip(ax.texts, ax.lines[::2], strict=True):
        box = text.get_window_extent()
        assert right.x1 < box.x0 < right.x1 + 20
        assert text.get_color() == line.get_color()
        assert box.x1 <= ax.figure.bbox.x1
        assert box.y0 >= right.y0


def test_names_tell_schedules_apart():
    cosine = [g.cosine_decay_schedule(1.0, steps) for steps in (50, 80)]

    def mine(step):
        return 0.1

    ax = plot(WARM, *cosine, mine, 0.5, steps=100)
    names = [text for text in _texts(ax) if not text.isdigit()]
    assert sorted(names) == [
        "0.5",
        "cosine_decay(decay_steps=50)",
        "cosine_decay(decay_steps=80)",
        "mine",
        "warmup_cosine_decay",
    ]
    assert _texts(plot(WARM, 0.5, steps=10, labels=["a", "b"])) == ["a", "b"]


def test_steps_that_would_touch_are_left_out():
    parts = g.piecewise_constant_schedule(1.0, {500: 0.5, 506: 0.5, 900: 0.5})
    ax = plot(parts, steps=1000)
    assert _texts(ax)[1:] == ["500", "900"]
    ax.figure.draw_without_rendering()
    assert not _overlap(ax.texts)
    assert len(ax.lines[1].get_xdata()) == 3


def test_logarithmic_scale_leaves_zeros_out_and_keeps_room():
    ax = plot(WARM, steps=1000, log=True)
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low >= 1e-8
    assert high >= 1e-3
    assert plot(0.0, steps=3, log=True).get_yscale() == "linear"


def test_function_that_cannot_be_traced_is_called():
    ax = plot(lambda step: 1.0 if step < 3 else 0.5, steps=5)
    assert ax.lines[0].get_ydata().tolist() == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert ax.lines[1].get_xdata().tolist() == [3]


def test_draws_in_given_axes_and_leaves_pyplot_alone():
    before = dict(matplotlib.rcParams)
    own = Figure().subplots()
    assert plot(WARM, steps=10, ax=own) is own
    plot(WARM, steps=10)
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_asks_for_what_it_needs(monkeypatch):
    with pytest.raises(g.ArgumentError, match="one schedule or more"):
        plot(steps=10)
    both: Any = [0.1, g.cosine_decay_schedule(0.1, 10)]
    with pytest.raises(g.ArgumentError, match=r"got list\. Give several one after"):
        plot(both, steps=10)
    with pytest.raises(g.ArgumentError, match="one for each of 1 schedules, got 2"):
        plot(WARM, steps=10, labels=["a", "b"])
    with pytest.raises(g.ArgumentError, match="steps"):
        plot(WARM, steps=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[plot\]'"):
        plot(WARM, steps=10)


def test_labels_move_as_little_as_they_must():
    places = np.array([0.0, 1.0, 1.0, 10.0])
    moved = spread(places, 2.0)
    np.testing.assert_allclose(moved, [2 / 3 - 2, 2 / 3, 2 / 3 + 2, 10.0])
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = np.sort(rng.uniform(0, 10, 7))
        moved = spread(places, 1.5)
        assert np.all(np.diff(moved) >= 1.5 - 1e-9)
        assert np.isclose(moved.mean(), places.mean())
    np.testing.assert_array_equal(spread(np.array([0.0, 5.0]), 1.0), [0.0, 5.0])
    assert spread(np.array([]), 1.0).size == 0
