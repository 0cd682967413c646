"""Show what is measured while the training runs: in a terminal, in a notebook."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from gradtx.core import ArgumentError, imported
from gradtx.telemetry._histogram import Histogram
from gradtx.telemetry._metrics import METRICS, parse
from gradtx.telemetry._programs import writes_here
from gradtx.telemetry._record import Record, Value
from gradtx.telemetry._sink import Sink

#: Points that a curve keeps; of more, every other one is left out.
_POINTS = 2000


def live(
    console: Any = None,
    *,
    names: Sequence[str] | None = None,
    rows: int = 40,
    interval: float = 0.25,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Show the last values in a table that stays in place, in a terminal.

    Beside each number stand the least and the greatest that was seen. Where the output
    is no terminal, the table is printed once, at the end.

    Args:
      console: a `rich.console.Console`; by default one on the standard output.
      names: what to show, in this order; by default all but single leaves.
      rows: how many to show at most; the table says how many are left out.
      interval: least time between refreshs, in seconds.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first show a table too.

    Raises:
      ImportError: if rich is not installed.
    """
    if not writes_here(every_process):
        return Sink(None, name="live")
    package = imported("rich.live", "telemetry")
    tables = imported("rich.table", "telemetry")
    last: dict[str, Value] = {}
    bounds: dict[str, tuple[float, float]] = {}
    screen = package.Live(console=console, auto_refresh=False)
    screen.start()

    def write(records: Sequence[Record]):
        for record in records:
            for name, value in record.values.items():
                last[name] = value
                if isinstance(value, (int, float)) and not math.isnan(value):
                    low, high = bounds.get(name, (value, value))
                    bounds[name] = min(low, value), max(high, value)
        shown = [n for n in last if not parse(n).leaf] if names is None else names
        shown = [name for name in shown if name in last]
        table = tables.Table(title=f"step {records[-1].step}")
        for column in ("metric", "last", "least", "greatest", "unit"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for name in shown[:rows]:
            metric = METRICS.get(parse(name).metric)
            cells = [_shown(v) for v in (last[name], *bounds.get(name, ("", "")))]
            table.add_row(_escaped(name), *cells, metric.unit if metric else "")
        if len(shown) > rows:
            table.caption = f"and {len(shown) - rows} more"
        screen.update(table, refresh=True)

    return Sink(
        write,
        close=screen.stop,
        name="live",
        capacity=capacity,
        interval=interval,
    )


def live_plot(
    names: Sequence[str] = ("loss",),
    *,
    logarithmic: bool = False,
    interval: float = 1.0,
    capacity: int = 1024,
    every_process: bool = False,
) -> Sink:
    """Draw metrics over steps in a notebook, below the cell, and keep redrawing.

    Args:
      names: what to draw, one plot below the other.
      logarithmic: whether the y axes are.
      interval: least time between drawings, in seconds.
      capacity: writes that the buffer holds.
      every_process: whether processes other than the first draw too.

    Raises:
      ImportError: if matplotlib or IPython is not installed.
      ArgumentError: if there are no names, or one text in place of several.
    """
    if isinstance(names, str) or not names:
        raise ArgumentError(
            f"expected names of metrics, got {names!r}. Give a list, as ['loss'].",
            "live_plot",
        )
    if not writes_here(every_process):
        return Sink(None, name="live_plot")
    figures = imported("matplotlib.figure", "plot")
    shown = imported("IPython.display", "docs")
    curves = {name: _Curve() for name in names}
    handle = shown.display(shown.Pretty("nothing measured yet"), display_id=True)

    def write(records: Sequence[Record]):
        for record in records:
            for name in curves:
                value = record.values.get(name)
                if isinstance(value, (int, float)):
                    curves[name].add(record.step, value)
        # A figure of its own, without pyplot, whose state is not made for threads.
        figure = figures.Figure(figsize=(6, 2.5 * len(curves)), layout="constrained")
        for index, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(len(curves), 1, index + 1)
            axes.plot(*zip(*curve.points, *curve.last) if curve.last else ((), ()))
            axes.set(ylabel=name, xlabel="step")
            if logarithmic:
                axes.set_yscale("log", nonpositive="mask")
        png = io.BytesIO()
        figure.savefig(png, format="png")
        if handle is not None:
            handle.update(shown.Image(png.getvalue()))

    return Sink(write, name="live_plot", capacity=capacity, interval=interval)


class _Curve:
    """Points of one metric, evenly fewer where they become too many, and the last."""

    def __init__(self):
        self.points: list[tuple[int, float]] = []
        self.last: list[tuple[int, float]] = []
        self._seen, self._stride = 0, 1

    def add(self, step: int, value: float) -> None:
        self.last = [(step, value)]
        if self._seen % self._stride == 0:
            self.points += self.last
        self._seen += 1
        if len(self.points) > _POINTS:
            del self.points[1::2]
            self._stride *= 2


def _shown(value: Value) -> str:
    if isinstance(value, Histogram):
        return f"{value.quantile(0.1):.3g} … {value.quantile(0.9):.3g}"
    return _escaped(value) if isinstance(value, str) else f"{value:.6g}"


def _escaped(text: str) -> str:
    return imported("rich.markup", "telemetry").escape(text)
