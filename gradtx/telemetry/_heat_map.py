"""Draw a metric of every leaf over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradtx.core import ArgumentError, new_figure
from gradtx.telemetry._history import History, Series, series
from gradtx.telemetry._metrics import METRICS, natural, parse, told_apart

#: Height of the row of one leaf, in inches, and that of a figure, at least and at most.
_ROW, _LEAST, _MOST = 0.2, 2.2, 24.0


def heat_map(
    history: History,
    metric: str = "moment_rms",
    field: str | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw a metric of each leaf over the steps, on a logarithmic scale of colours.

    Rows are leaves, in their order in the history, but layer 2 before layer 10; columns
    are steps at which they were measured. Grey is what was not measured, not finite, or
    not above zero. What all paths begin with is beside the axis.

    Args:
      history: as in `plot`, with names for each leaf, as `observe(per_leaf=True)` gives
        them: `moment_rms/field/scale_by_adam.nu/leaf/encoder/kernel`.
      metric: the first part of the names, such as "effective_learning_rate".
      field: the field of the state, such as "scale_by_adam.nu", where there are several.
      ax: axes of matplotlib to draw in; by default those of a new figure, which pyplot
        does not know of: `ax.figure.savefig(path)` writes it.

    Returns:
      The axes.

    Raises:
      ArgumentError: if no leaf has such a metric, or it is that of several fields.
      ImportError: if there is no matplotlib.

    Example:
      >>> from gradtx import telemetry
      >>> name = "update_norm/leaf/encoder/kernel"
      >>> run = [(step, {name: 1.0 + step}) for step in range(5)]
      >>> ax = telemetry.heat_map(run, "update_norm")
      >>> [label.get_text() for label in ax.get_yticklabels()]
      ['encoder/kernel']
    """
    rows, field = _rows(series(history), metric, field)
    steps = np.unique(np.concatenate([row.steps for row in rows.values()]))
    values = np.full((len(rows), len(steps)), np.nan)
    for line, row in zip(values, rows.values(), strict=True):
        line[np.searchsorted(steps, row.steps)] = row.values
    positive = np.isfinite(values) & (values > 0)
    if not positive.any():
        raise ArgumentError(
            f"{metric} of {field or 'every leaf'} is nowhere above zero and finite: "
            "there is nothing to draw on a logarithmic scale.",
            "telemetry.heat_map",
        )
    if ax is None:
        height = max(_LEAST, 1.2 + _ROW * len(rows))
        ax = new_figure(9, min(_MOST, height)).subplots()
    _paint(ax, steps, np.where(positive, values, np.nan))
    ax.set_title(_title(metric, field), loc="left", fontsize=10)
    apart = -(-len(rows) // int(_MOST / _ROW))
    front = told_apart(list(rows), "/")[1]
    texts = [leaf.removeprefix(f"{front}/") for leaf in rows]
    if front:
        ax.set_ylabel(f"{front}/…", fontsize=8)
    ax.set_yticks(np.arange(len(rows))[::apart], texts[::apart], fontsize=8)
    return ax


def _rows(
    found: Mapping[str, Series], metric: str, field: str | None
) -> tuple[dict[str, Series], str]:
    """Return the series of each leaf, and the field that they are of."""
    names = {name: parse(name) for name in found}
    of_leaves = {k: n for k, n in names.items() if n.leaf and n.metric == metric}
    if not of_leaves:
        there = sorted({n.metric for n in names.values() if n.leaf})
        raise ArgumentError(
            f"the history has no {metric!r} of single leaves; it has {there or 'none'}. "
            "Measure them by observe(..., per_leaf=True).",
            "telemetry.heat_map",
        )
    fields = list(dict.fromkeys(name.field for name in of_leaves.values()))
    if field is None and len(fields) > 1:
        raise ArgumentError(
            f"{metric} is measured of several fields, got {fields}. Choose one by field=.",
            "telemetry.heat_map",
        )
    field = fields[0] if field is None else field
    if field not in fields:
        raise ArgumentError(
            f"field must be one of {fields}, got {field!r}.", "telemetry.heat_map"
        )
    rows = {n.leaf: found[k] for k, n in of_leaves.items() if n.field == field}
    if list(rows) == sorted(rows):  # as `observe` has them
        rows = {leaf: rows[leaf] for leaf in sorted(rows, key=natural)}
    return rows, field


def _paint(ax: Any, steps: np.ndarray, values: np.ndarray) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullFormatter

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low == high:  # one colour needs a scale too
        low, high = low / 2, high * 2
    middles = (steps[1:] + steps[:-1]) / 2
    width = np.diff(steps)[[0, -1]] / 2 if len(steps) > 1 else np.full(2, 0.5)
    across = np.concatenate(
        [[steps[0] - width[0]], middles, [steps[-1] + width[1]]], dtype=float
    )
    down = np.arange(len(values) + 1) - 0.5
    shown = np.ma.masked_invalid(values)
    norm = LogNorm(low, high)
    mesh = ax.pcolormesh(across, down, shown, norm=norm, cmap="viridis")
    ax.set_facecolor("lightgrey")
    ax.invert_yaxis()
    if len(steps) > 1:
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        ax.set_xticks(steps)
    ax.tick_params(labelsize=8)
    gaps = "; grey: zero, not finite or not measured" if np.isnan(values).any() else ""
    ax.set_xlabel(f"step (updates){gaps}")
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.01, fraction=0.03, aspect=30)
    bar.ax.tick_params(labelsize=8, which="both")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    if high < 100 * low:  # there may be no power of ten to write
        ticks = np.geomspace(low, high, 3)
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])


def _title(metric: str, field: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else ""
    name = f"{metric} of {field}" if field else metric
    return f"{name} ({unit})" if unit else name
