"""The table and the plot show what was measured last."""

import base64
import io
import sys

import matplotlib.image
import nbclient
import nbformat
import numpy as np
import pytest
import rich.console

from gradtx.core import ArgumentError
from gradtx.telemetry import Histogram, bin_edges
from gradtx.telemetry._live import live, live_plot


def _table(text):
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == 5:
            rows[cells[0]] = cells[1:]
    return rows


def _console(terminal=False):
    """Return a console and the text that it writes to."""
    text = io.StringIO()
    return rich.console.Console(file=text, width=100, force_terminal=terminal), text


def test_table_has_last_least_and_greatest():
    console, text = _console()
    counts = np.zeros(514, np.int64)
    counts[321] = 10  # 1 to 1.125
    with live(console) as sink:
        for step, loss in enumerate([float("nan"), 3.0, 0.5, 1.25]):
            sink.write(step, {"loss": loss, "step_seconds": 0.25})
        sink.write(9, {"first_nonfinite": "a[red]b", "norm/leaf/a": 1.0, "x [/b]": 2})
        sink.write(9, {"gradient_histogram": Histogram(counts, bin_edges())})
        sink.write(9, {"update_norm/leaf/a": 1.0})
    assert (sink.dropped, sink.last_error) == (0, None)
    rows = _table(text.getvalue())
    assert rows["loss"] == ["1.25", "0.5", "3", ""]
    assert rows["step_seconds"] == ["0.25", "0.25", "0.25", "seconds"]
    assert rows["first_nonfinite"][0] == "a[red]b"
    assert rows["x [/b]"][0] == "2"
    assert rows["gradient_histogram"][0] == "1.01 … 1.11"
    assert "update_norm/leaf/a" not in rows
    assert "step 9" in text.getvalue()


def test_table_is_drawn_in_place_in_a_terminal():
    console, text = _console(terminal=True)
    with live(console, interval=0, names=["loss", "absent"]) as sink:
        for step in range(3):
            sink.write(step, {"loss": float(step), "other": 1.0})
            assert sink.flush()
    drawn = text.getvalue()
    assert drawn.count("step ") >= 3
    assert "\x1b[1A" in drawn, "the cursor goes up to draw again"
    assert "other" not in drawn


def test_long_table_says_how_much_it_leaves_out():
    console, text = _console()
    with live(console, rows=3) as sink:
        sink.write(1, {f"m{i}": 1.0 for i in range(10)})
    assert "and 7 more" in text.getvalue()
    assert "m2" in text.getvalue()
    assert "m3" not in text.getvalue()


def test_terminal_that_is_gone_costs_only_counted_drops():
    console, text = _console(terminal=True)
    with live(console, interval=0) as sink:
        text.close()
        for step in range(3):
            sink.write(step, {"loss": 1.0})
            assert sink.flush()
    assert sink.dropped == 3
    assert sink.errors["ValueError"] >= 3


NOTEBOOK = """
import time
from gradtx.telemetry._live import live_plot
sink = live_plot(["loss", "norm"], interval=0, capacity=4000)
for step in range(3000):
    sink.write(step, {"loss": 1 / (1 + step), "norm": float("nan"), "text": "x"})
sink.close()
print(sink.dropped, sink.last_error)
"""


def test_plot_is_drawn_in_a_notebook():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(book, timeout=60, resources={}).execute()
    outputs = book.cells[0].outputs
    streams = [(o.name, o.text) for o in outputs if o.output_type == "stream"]
    assert streams == [("stdout", "0 None\n")]
    (shown,) = [o for o in outputs if o.output_type == "display_data"]
    png = base64.b64decode(shown.data["image/png"])
    image = matplotlib.image.imread(io.BytesIO(png))
    assert image.shape[0] >= 400
    assert image[..., :3].std() > 0.02, "something is drawn"


def test_plot_thins_long_curves_evenly(monkeypatch):
    import IPython.display
    import matplotlib.axes

    drawn = []
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: None)
    monkeypatch.setattr(matplotlib.axes.Axes, "plot", lambda self, *a: drawn.append(a))
    with live_plot(capacity=10_000) as sink:
        for step in range(9000):
            sink.write(step, {"loss": float(step)})
    assert sink.dropped == 0
    steps, values = drawn[-1]
    assert steps == (*range(0, 9000, 8), 8999)
    assert [*values] == [*map(float, steps)]


@pytest.mark.parametrize("names", ["loss", []])
def test_names_that_are_none_are_refused(names):
    with pytest.raises(ArgumentError, match="expected names of metrics"):
        live_plot(names)


@pytest.mark.parametrize(
    ("factory", "package", "extra"),
    [(live, "rich.live", "telemetry"), (live_plot, "matplotlib.figure", "plot")],
)
def test_missing_package_names_the_extra(factory, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'gradtx\[{extra}\]'"):
        factory()
