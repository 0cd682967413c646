"""Pictures of a history have its numbers, its names, its gaps and its events."""

import itertools
import math
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import gradtx as g
from gradtx.telemetry._heat_map import heat_map
from gradtx.telemetry._history import series
from gradtx.telemetry._plot import plot

STEPS = range(0, 60, 2)
BAD = (20, 22)


def _record(step):
    bad = step in BAD
    rate = 1e-3 * (1 - step / 60)
    return {
        "loss": math.nan if bad else 1 / (1 + step),
        "loss_smoothed": 1.01 / (1 + step),
        "gradient_norm": math.inf if bad else 2.0,
        "update_norm": rate,
        "param_norm": 30.0,
        "update_to_param_ratio": rate / 30,
        "learning_rate": rate,
        "effective_learning_rate": 3 * rate,
        "effective_learning_rate_p10": rate,
        "effective_learning_rate_p90": 9 * rate,
        "skipped_updates": sum(it <= step for it in BAD) + (step >= 40),
        "nonfinite_updates": sum(it <= step for it in BAD),
        "first_nonfinite": "enc" if bad else "",
        "update_norm/group/body": rate / 2,
        "update_norm/group/head": rate / 2.01,
        **_leaves(step),
    }


def _leaves(step):
    return {
        f"moment_rms/field/scale_by_adam.{field}/leaf/{leaf}": scale * (i + 1) * (1 + step)
        for field, scale in (("mu", 1.0), ("nu", 1e-6))
        for i, leaf in enumerate(("head/kernel", "enc/kernel", "enc/bias"))
    }  # fmt: skip


RUN = [(step, _record(step)) for step in STEPS]


def _panels(figure):
    return {ax.get_title(loc="left"): ax for ax in figure.axes}


def _lines(ax):
    return {
        line.get_label(): line
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def _overlapping(figure):
    figure.draw_without_rendering()
    texts = [text for ax in figure.axes for text in ax.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    pairs = itertools.combinations(boxes, 2)
    return [(a[0], b[0]) for a, b in pairs if a[1].overlaps(b[1])]


def test_one_panel_for_each_family():
    panels = _panels(plot(RUN))
    assert [*panels] == [
        "loss",
        "norms",
        "update / parameters",
        "learning rate",
        "effective learning rate",
    ]
    assert [*_lines(panels["norms"])] == ["gradient_norm", "update_norm", "param_norm"]
    scales = {title: ax.get_yscale() for title, ax in panels.items()}
    assert scales == {
        "loss": "linear",
        "norms": "log",
        "update / parameters": "log",
        "learning rate": "linear",
        "effective learning rate": "log",
    }
    assert panels["effective learning rate"].get_xlabel() == "step (updates)"


def test_lines_have_the_numbers_and_gaps_where_there_are_none():
    panels = _panels(plot(RUN))
    steps, losses = _lines(panels["loss"])["loss"].get_data()
    assert steps.tolist() == [*STEPS]
    expected = [record["loss"] for _, record in RUN]
    np.testing.assert_array_equal(losses, expected)
    norms = _lines(panels["norms"])["gradient_norm"].get_ydata()
    assert np.flatnonzero(np.isnan(norms)).tolist() == [10, 11]


def test_band_goes_from_p10_to_p90():
    ax = _panels(plot(RUN))["effective learning rate"]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    at_0 = corners[corners[:, 0] == 0][:, 1]
    np.testing.assert_allclose((at_0.min(), at_0.max()), (1e-3, 9e-3))
    assert [text.get_text() for text in ax.texts] == ["median, p10 to p90"]


def _marks(ax):
    """Return the steps of events that are lines, by the style of the line."""
    marks = {}
    for line in ax.lines:
        if len(line.get_xdata()) == 2 and line.get_label().startswith("_"):
            marks.setdefault(line.get_linestyle(), []).append(line.get_xdata()[0])
    return marks


def test_events_are_marked_in_all_panels():
    figure = plot(RUN)
    for ax in figure.axes:
        assert _marks(ax) == {"--": [20, 22, 40], "-": [20, 22]}
    shown = [text.get_text() for text in figure.axes[0].texts]
    counted = {"skipped: 3×, from step 20 on", "not finite: 2×, from step 20 on"}
    assert counted <= {*shown}
    quiet = plot([(step, {"loss": 1.0}) for step in STEPS])
    assert not quiet.axes[0].texts


def test_long_run_of_events_is_shaded_and_hides_nothing():
    run = [(s, {"loss": math.nan if s >= 30 else 1.0, "accuracy": 0.5}) for s in STEPS]
    run.insert(20, (33, {"validation_loss": 1.0}))  # nothing is known of step 33
    figure = plot(run)
    for ax in figure.axes:
        assert not _marks(ax)
        (span,) = [patch for patch in ax.patches if patch.get_alpha() == 0.15]
        assert (span.get_x(), span.get_width()) == (30, 28)
    (text,) = [x for x in figure.axes[0].texts if "not finite" in x.get_text()]
    assert text.get_text() == "not finite: 15×, from step 30 on"


def test_events_between_two_records_are_counted():
    counts = {10: 0, 20: 5, 30: 5, 40: 6}
    run = [(s, {"loss": 1.0, "skipped_updates": n}) for s, n in counts.items()]
    figure = plot(run)
    assert _marks(figure.axes[0]) == {"--": [20, 40]}
    assert figure.axes[0].texts[0].get_text() == "skipped: 6×, from step 20 on"


def test_many_lines_have_room_for_their_labels():
    groups = [f"h_{i}" for i in range(24)]
    named = {f"update_norm/group/{g}": 1.0 + i for i, g in enumerate(sorted(groups))}
    figure = plot([(step, named) for step in STEPS], "update_norm/group/*")
    assert not _overlapping(figure)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] != groups  # by height
    assert {text.get_text() for text in ax.texts} == {*groups}
    assert ax.get_window_extent().height > 2 * figure.dpi
    names = [line.get_label().rpartition("/")[2] for line in ax.lines]
    assert [name for name in names if name in groups] == groups, "layer 2 before 10"
    colors = [line.get_color() for line in _lines(ax).values()]
    assert len({*colors}) == 24
    huge = {f"update_norm/leaf/{i}": 1.0 + i for i in range(400)}
    figure = plot([(step, huge) for step in (0, 1)], "update_norm/leaf/*")
    assert not _overlapping(figure)
    assert figure.get_figheight() < 8
    texts = [int(text.get_text()) for text in figure.axes[0].texts]
    assert texts == sorted(texts)
    assert 10 < len(texts) < 40


def test_long_names_are_told_apart_by_what_differs():
    rate = "scale_by_learning_rate.step_size"
    fields = [
        f"partition.inner_states.{x}.inner_state.{rate}" for x in ("slow", "fast")
    ]
    run = [(s, {f"learning_rate/field/{f}": 1.0 + s for f in fields}) for s in STEPS]
    ax = plot(run).axes[0]
    assert {text.get_text() for text in ax.texts} == {"slow", "fast"}
    long = ["a" * 50, "b" * 50]
    run = [(s, {f"update_norm/group/{x}": 1.0 for x in long}) for s in STEPS]
    texts = [text.get_text() for text in plot(run, "update_norm/*").axes[0].texts]
    assert {*texts} == {f"{'a' * 19}…{'a' * 20}", f"{'b' * 19}…{'b' * 20}"}


def test_odd_panel_has_a_row_and_the_numbers_of_steps():
    figure = plot(RUN)
    *others, last = figure.axes
    assert last.get_window_extent().width > 1.8 * others[0].get_window_extent().width
    below = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes]
    assert below == [False, False, True, True, True]
    sizes = {label.get_fontsize() for label in last.get_yticklabels(which="both")}
    assert sizes == {8.0}


def test_steps_are_whole_numbers():
    one = plot(RUN[:1])
    assert one.axes[0].get_xticks().tolist() == [0]
    few = plot(RUN[:2])
    few.draw_without_rendering()
    shown = [label.get_text() for label in few.axes[-1].get_xticklabels()]
    assert not any("." in text for text in shown)
    ax = heat_map(RUN[:1], field="scale_by_adam.nu")
    assert ax.get_xticks().tolist() == [0]


def test_single_event_is_named_by_its_step():
    run = [(step, {"loss": 1.0, "skipped_updates": int(step >= 8)}) for step in STEPS]
    (text,) = plot(run).axes[0].texts
    assert text.get_text() == "skipped: step 8"


def test_labels_are_at_the_ends_and_apart():
    figure = plot(RUN, ["*loss*", "update_norm/group/*", "moment_rms/*"])
    assert not _overlapping(figure)
    assert not _overlapping(plot(RUN))
    for ax in figure.axes:
        colors = {line.get_color() for line in _lines(ax).values()}
        ends = [text for text in ax.texts if text.get_color() in colors]
        assert len(ends) == len(_lines(ax)) or ax.get_title(loc="left") in _lines(ax)
        for text in ends:
            box = text.get_window_extent()
            assert box.x0 > ax.get_window_extent().x1
            assert box.x1 <= figure.bbox.x1
    ax = _panels(figure)["update_norm"]
    assert {text.get_text() for text in ax.texts} == {"body", "head"}


def test_chosen_names_have_a_panel_for_each_metric():
    figure = plot(
        RUN, ["update_norm", "update_norm/group/*", "moment_rms/*nu/leaf/enc*"]
    )
    panels = _panels(figure)
    assert [*panels] == ["update_norm", "moment_rms of scale_by_adam.nu"]
    texts = lambda title: [text.get_text() for text in panels[title].texts]
    assert {*texts("moment_rms of scale_by_adam.nu")} == {"enc/kernel", "enc/bias"}
    assert {"all", "body", "head"} <= {*texts("update_norm")}
    with pytest.raises(g.ArgumentError, match=r"'los' matches none of loss, .* more"):
        plot(RUN, ["los"])


def test_user_metrics_have_panels():
    run = [(step, {"accuracy": step / 60, "loss": 1.0}) for step in STEPS]
    assert [*_panels(plot(run))] == ["loss", "accuracy"]


def test_units_are_beside_the_axis():
    run = [(step, {"step_seconds": 0.5}) for step in STEPS]
    assert plot(run, ["step_seconds"]).axes[0].get_ylabel() == "seconds"


def test_forms_of_a_history_are_one():
    pairs = [(step, {"loss": 1.0 * step, "text": "a"}) for step in STEPS]
    lines = [{"step": s, "time": 1.0, **values} for s, values in pairs]
    columns = {"step": jnp.array([*STEPS]), "loss": jnp.array([1.0 * s for s in STEPS])}
    for history in (pairs, lines, columns, iter(pairs)):
        found = series(history)
        assert [*found] == ["loss"]
        np.testing.assert_array_equal(found["loss"].steps, [*STEPS])
        np.testing.assert_array_equal(found["loss"].values, [1.0 * s for s in STEPS])
    assert series({"loss": np.ones(3)})["loss"].steps.tolist() == [0, 1, 2]
    half = series({"loss": jnp.ones(2, jnp.bfloat16)})["loss"]
    assert half.values.dtype == float


def test_later_of_two_runs_over_a_step_counts():
    found = series([(1, {"a": 1.0}), (2, {"a": 2.0}), (1, {"a": 3.0}), (3, {"b": 0})])
    assert found["a"].steps.tolist() == [1, 2]
    assert found["a"].values.tolist() == [3.0, 2.0]
    assert found["b"].values.tolist() == [0.0]


def test_history_of_another_form_is_refused():
    with pytest.raises(g.ArgumentError, match='dicts with the key "step"'):
        series([1.0, 2.0])
    with pytest.raises(g.ArgumentError, match="one number a step"):
        series({"loss": np.ones((3, 2))})
    with pytest.raises(g.ArgumentError, match="nothing to draw"):
        plot([])


def test_lonely_number_is_a_dot():
    ax = plot([(0, {"loss": 1.0}), (1, {"loss": math.nan}), (2, {"loss": 2.0})]).axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert dots[0].get_xdata().tolist() == [0, 2]


def test_draws_what_a_scan_gives():
    def body(w, _):
        loss, grad = jax.value_and_grad(lambda w: jnp.sum(w**2))(w)
        return w - 0.1 * grad, {"loss": loss, "gradient_norm": jnp.linalg.norm(grad)}

    _, history = jax.lax.scan(body, jnp.ones(3), None, length=20)
    losses = _lines(_panels(plot(history))["loss"])["loss"].get_ydata()
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)


def test_draws_what_an_optimizer_measures():
    tx = g.telemetry.observe(
        g.adam(g.linear_schedule(0.0, 0.1, 5)), every=1, per_leaf=True
    )
    params = {"enc": {"w": jnp.ones((3, 2))}, "head": jnp.ones(4)}
    state, run = tx.init(params), []
    for step in range(6):
        _, state = tx.update(params, state, params)
        run.append((step, g.telemetry.read(state)))
    panels = _panels(plot(run))
    assert len(panels) == 4
    rates = _lines(panels["effective learning rate"])["effective_learning_rate"]
    assert rates.get_ydata()[0] == 0.0, "the learning rate was 0"
    assert panels["effective learning rate"].get_ylim()[0] > 1e-3
    for metric, field in [
        ("moment_rms", "scale_by_adam.nu"),
        ("effective_learning_rate", None),
    ]:
        ax = heat_map(run, metric, field)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == ["enc/w", "head"]
        assert ax.collections[0].get_clim()[0] > 1e-6


def test_heat_map_has_a_row_for_each_leaf_in_order():
    ax = heat_map(RUN, field="scale_by_adam.nu")
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["head/kernel", "enc/kernel", "enc/bias"]
    low, high = ax.get_ylim()
    assert low > high, "the first leaf is on top"
    (mesh,) = ax.collections
    expected = 1e-6 * np.outer([1, 2, 3], [1 + step for step in STEPS])
    np.testing.assert_allclose(mesh.get_array().reshape(3, -1), expected)
    np.testing.assert_allclose(mesh.get_clim(), (1e-6, 3 * 59e-6))
    assert type(mesh.norm).__name__ == "LogNorm"
    assert ax.get_title(loc="left") == "moment_rms of scale_by_adam.nu"
    assert ax.get_xlabel() == "step (updates)", "there is nothing grey"
    across = mesh.get_coordinates()[0, :, 0]
    assert across.tolist() == [*range(-1, 60, 2)], "a column is around its step"


def test_heat_map_leaves_gaps_grey():
    name = "effective_learning_rate/leaf/"
    run = [
        (0, {f"{name}a": 1.0, f"{name}b": math.nan}),
        (10, {f"{name}a": 0.0, f"{name}b": 2.0}),
        (30, {f"{name}b": math.inf, f"{name}c": 1.5}),
    ]
    ax = heat_map(run, "effective_learning_rate")
    (mesh,) = ax.collections
    mask = np.ma.getmaskarray(mesh.get_array()).reshape(3, 3)
    expected = [[False, True, True], [True, False, True], [True, True, False]]
    assert mask.tolist() == expected
    assert mesh.get_clim() == (1.0, 2.0)
    assert to_hex(ax.get_facecolor()) == "#d3d3d3"
    assert "grey: zero, not finite or not measured" in ax.get_xlabel()
    assert mesh.get_coordinates()[0, :, 0].tolist() == [-5, 5, 20, 40]


def test_heat_map_has_layers_in_order_and_their_common_path_once():
    leaves = [f"params/net/h_{i}/kernel" for i in range(12)]
    run = [(s, {f"update_norm/leaf/{x}": 1.0 for x in sorted(leaves)}) for s in (0, 1)]
    ax = heat_map(run, "update_norm")
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"h_{i}/kernel" for i in range(12)]
    assert ax.get_ylabel() == "params/net/…"


def test_heat_map_of_little_difference_has_readable_numbers():
    name = "update_norm/leaf/"
    ax = heat_map([(0, {f"{name}a": 1e-3, f"{name}b": 2.6e-3})], "update_norm")
    bar = ax.collections[0].colorbar.ax
    ax.figure.draw_without_rendering()
    labels = [x for x in bar.get_yticklabels(which="both") if x.get_text()]
    assert [x.get_text() for x in labels] == ["0.001", "0.0016", "0.0026"]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_heat_map_of_many_leaves_keeps_names_apart():
    run = [(s, {f"update_norm/leaf/l{i:03}": 1.0 for i in range(300)}) for s in (0, 1)]
    ax = heat_map(run, "update_norm")
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert len(boxes) >= 90
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert ax.figure.get_figheight() <= 25


def test_heat_map_asks_for_the_field_and_for_leaves():
    with pytest.raises(g.ArgumentError, match=r"Choose one by field="):
        heat_map(RUN)
    with pytest.raises(g.ArgumentError, match=r"field must be one of .* got 'nu'"):
        heat_map(RUN, field="nu")
    with pytest.raises(g.ArgumentError, match=r"it has \['moment_rms'\]. Measure"):
        heat_map(RUN, "update_norm")
    zeros = [(0, {"update_norm/leaf/a": 0.0})]
    with pytest.raises(g.ArgumentError, match="nowhere above zero"):
        heat_map(zeros, "update_norm")


def test_leaves_pyplot_alone_and_draws_in_given_axes():
    before = dict(matplotlib.rcParams)
    assert isinstance(plot(RUN), Figure)
    own = Figure().subplots()
    assert heat_map(RUN, field="scale_by_adam.mu", ax=own) is own
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (plot, lambda run: heat_map(run, field="scale_by_adam.mu")):
        with pytest.raises(ImportError, match=r"pip install 'gradtx\[plot\]'"):
            draw(RUN)
