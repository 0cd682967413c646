"""Draw what was measured over a training."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx.core import COLORS, ArgumentError, LineEnd, label_ends, new_figure
from gradtx.telemetry._history import History, Series, series
from gradtx.telemetry._metrics import METRICS, Name, natural, parse, told_apart

#: Panels that are drawn where names are not chosen: a title, whether the scale is
#: logarithmic, and metrics.
_PANELS = (
    ("loss", False, ("loss", "loss_smoothed", "validation_loss")),
    ("norms", True, ("gradient_norm", "update_norm", "param_norm")),
    ("update / parameters", True, ("update_to_param_ratio",)),
    ("learning rate", False, ("learning_rate",)),
    ("effective learning rate", True, ("effective_learning_rate",)),
)
#: Metrics that draw a band around another one.
_BANDS = {
    "effective_learning_rate": (
        "effective_learning_rate_p10",
        "effective_learning_rate_p90",
    )
}
#: Counters whose rise is an event, what it is called, its color and style.
_EVENTS = {
    "skipped_updates": ("skipped", "#8a6d00", "--"),
    "nonfinite_updates": ("not finite", "#b30000", "-"),
}
#: Gauges that are an event where they are above 0.
_FOUND = ("gradient_nonfinite", "update_nonfinite", "param_nonfinite")
#: Inches: of a panel at least, and for each label at the ends of lines.
_PANEL, _LABEL = 1.9, 0.17
#: Of more lines, only those have a label whose ends lie apart.
_MOST = 30
#: Labels of fewer characters are not shortened, and none has more than the second.
_BRIEF, _LONGEST = 24, 40


class _Panel(NamedTuple):
    title: str
    log: bool
    names: list[Name]


def plot(
    history: History, names: Sequence[str] | None = None, *, width: float = 9.0
) -> Any:
    """Draw metrics over the steps of a training, one panel for each family.

    Loss, norms, the ratio of updates to parameters, the learning rate and the effective
    one, with a band from its tenth to its ninetieth percentile, as far as they were
    measured, then metrics of other names. Each line has its name at its end: what tells
    it from the others. NaNs and infinities leave gaps. Updates that were skipped or not
    finite are marked in all panels, and counted above the first.

    Args:
      history: what `read_jsonl` returns, pairs `(step, metrics)`, or a dict of arrays
        by name, whose key "step" may have the steps.
      names: patterns of names instead, such as `"update_norm/group/*"`, in which `*`
        stands for anything; one panel for each metric.
      width: of the figure, in inches.

    Returns:
      A `matplotlib.figure.Figure`, which pyplot does not know of:
      `figure.savefig(path)` writes it.

    Raises:
      ArgumentError: if the history has another form, or nothing of these names.
      ImportError: if there is no matplotlib.

    Example:
      >>> from gradtx import telemetry
      >>> steps = range(100)
      >>> run = [(i, {"loss": 1 / (1 + i), "gradient_norm": 2.0}) for i in steps]
      >>> [ax.get_title(loc="left") for ax in telemetry.plot(run).axes]
      ['loss', 'norms']
    """
    found = series(history)
    panels = _default(found) if names is None else _chosen(found, names)
    if not panels:
        raise ArgumentError(
            f"nothing to draw: the history has {_listed(found)}. Choose some by names=.",
            "telemetry.plot",
        )
    figure, axes = _laid_out(panels, width)
    ends = [_draw(ax, panel, found) for ax, panel in zip(axes, panels, strict=True)]
    _mark_events(axes, found)
    steps = {step for panel in panels for n in panel.names for step in found[str(n)][0]}
    if len(steps) == 1:
        axes[0].set_xticks([*steps])
    texts: list[Any] = []
    for _ in range(2):  # labels make the axes smaller, and where lines end moves
        figure.draw_without_rendering()
        for text in texts:
            text.remove()
        texts = []
        for ax, labels in zip(axes, ends, strict=True):
            few = len(labels) <= _MOST
            texts += label_ends(ax, labels if few else _apart(ax, labels))
    return figure


def _laid_out(panels: Sequence[_Panel], width: float) -> tuple[Any, list[Any]]:
    """Return a figure and axes for the panels: the last one may have a row alone."""
    columns = 1 if len(panels) < 3 else 2
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(_room(panel) for panel in row) for row in rows]
    figure = new_figure(width, 0.6 + sum(heights))
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    axes: list[Any] = []
    for i, row in enumerate(rows):
        for j in range(len(row)):
            place = grid[i, j] if len(row) == columns else grid[i, :]
            shared = axes[0] if axes else None
            ax = figure.add_subplot(place, sharex=shared)
            # a wider panel below has other places for the same steps
            last = i == len(rows) - 1
            numbers = last or len(row) > len(rows[i + 1])
            ax.tick_params(labelbottom=numbers, labelsize=8, which="both")
            ax.set_xlabel("step (updates)" if last else "")
            axes.append(ax)
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    return figure, axes


def _room(panel: _Panel) -> float:
    """Return the height of a panel in inches."""
    return max(_PANEL, 0.5 + _LABEL * min(_MOST, len(panel.names)))


def _apart(ax: Any, ends: Sequence[LineEnd]) -> list[LineEnd]:
    """Return those ends, from the lowest up, whose labels need not be moved apart."""
    kept: list[LineEnd] = []
    height = -np.inf
    for end in sorted(ends, key=lambda end: end.y):
        place = ax.transData.transform((end.x, end.y))[1] / ax.figure.dpi
        if place >= height + _LABEL:
            kept.append(end)
            height = place
    return kept


def _default(found: Mapping[str, Series]) -> list[_Panel]:
    """Return the panels of the usual families, then one for each other metric."""
    parsed = [name for name in map(parse, found) if not (name.group or name.leaf)]
    panels = [
        _Panel(title, log, [n for m in metrics for n in parsed if n.metric == m])
        for title, log, metrics in _PANELS
    ]
    own = [name for name in parsed if name.metric not in METRICS]
    panels += [_Panel(name.metric, False, [name]) for name in own]
    return [panel for panel in panels if panel.names]


def _chosen(found: Mapping[str, Series], patterns: Sequence[str]) -> list[_Panel]:
    families: dict[str, list[Name]] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ArgumentError(
                f"{pattern!r} matches none of {_listed(found)}.", "telemetry.plot"
            )
        for name in map(parse, matches):
            family = families.setdefault(name.metric, [])
            family += [] if name in family else [name]
    steep = {metric for _, log, metrics in _PANELS if log for metric in metrics}
    steep |= {"moment_norm", "moment_rms", "effective_learning_rate_spread"}
    steep |= {metric for band in _BANDS.values() for metric in band}
    titles = {
        metric: " of ".join([metric, *({n.field for n in own} - {""})])
        if len({n.field for n in own}) == 1
        else metric
        for metric, own in families.items()
    }
    for own in families.values():
        if len(own) > len(COLORS):  # colors then follow the order of layers
            own.sort(key=lambda name: natural(str(name)))
    return [_Panel(titles[k], k in steep, own) for k, own in families.items()]


def _draw(ax: Any, panel: _Panel, found: Mapping[str, Series]) -> list[LineEnd]:
    """Draw one panel, and return the labels of its lines."""
    ax.set_title(panel.title, loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0)
    units = {METRICS[n.metric].unit for n in panel.names if n.metric in METRICS} - {""}
    ax.set_ylabel(", ".join(sorted(units)), fontsize=8)
    ends, lowest = [], np.inf
    colors, labels = _colors(len(panel.names)), _labels(panel)
    for name, color, label in zip(panel.names, colors, labels, strict=True):
        steps, values = found[str(name)]
        values = np.where(np.isfinite(values), values, np.nan)
        ax.plot(steps, values, linewidth=1.3, color=color, label=str(name))
        lonely = _lonely(values)
        dots = {"marker": ".", "linestyle": "none", "color": color}
        ax.plot(steps[lonely], values[lonely], **dots)
        low, high = (found.get(str(n)) for n in _band(name))
        if low is not None and high is not None:
            shown = low.values > 0 if panel.log else np.isfinite(low.values)
            ax.fill_between(
                *(low.steps, low.values, high.values, shown),
                color=color,
                alpha=0.2,
                linewidth=0,
            )
        known = np.flatnonzero(values > 0 if panel.log else np.isfinite(values))
        if len(known):
            lowest = min(lowest, float(np.min(values[known])))
            end = float(steps[known[-1]]), float(values[known[-1]])
            ends.append(LineEnd(*end, label, color))
    if panel.log and np.isfinite(lowest):
        ax.set_yscale("log", nonpositive="mask")
    return [end for end in ends if end.text]


def _lonely(values: np.ndarray) -> np.ndarray:
    """Say which numbers have a gap on both sides, so that no line shows them."""
    known = np.pad(np.isfinite(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def _band(name: Name) -> tuple[Name, Name]:
    low, high = _BANDS.get(name.metric, ("", ""))
    return name._replace(metric=low), name._replace(metric=high)


def _colors(count: int) -> list[str]:
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(x) for x in colormaps["viridis"](np.linspace(0, 0.72, count))]


def _labels(panel: _Panel) -> list[str]:
    """Return for each line the parts of its name that tell it from the others."""
    names = panel.names
    if len(names) == 1:  # the title has its name
        return ["median, p10 to p90" if names[0].metric in _BANDS else ""]
    columns = []
    for part, mark in (("metric", "/"), ("field", "."), ("group", "/"), ("leaf", "/")):
        texts = [getattr(name, part) for name in names]
        there = [text for text in texts if text]
        if len({*texts}) > 1 and max(map(len, there)) > _BRIEF:
            short = dict(zip(there, told_apart(there, mark)[0], strict=True))
            texts = [short.get(text, "") for text in texts]
        columns.append(texts if len({*texts}) > 1 else [""] * len(texts))
    rows = zip(*columns, strict=True)
    return [_elided(" ".join(filter(None, row)) or "all") for row in rows]


def _elided(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]}…{text[-half:]}"


def _mark_events(axes: Sequence[Any], found: Mapping[str, Series]) -> None:
    """Mark events in all panels, and say above the first what they are."""
    above = 15.0  # the line of the title
    for kind, color, style in _EVENTS.values():
        counts, seen = _events(found, kind)
        steps = sorted(counts)
        if not steps:
            continue
        for first, last, number in _runs(steps, seen):
            for ax in axes:
                if number > 2:  # lines side by side would hide all else
                    ax.axvspan(first, last, color=color, alpha=0.15, linewidth=0)
                    continue
                for step in dict.fromkeys((first, last)):
                    line = {"color": color, "linestyle": style, "linewidth": 1.0}
                    ax.axvline(step, **line, alpha=0.7, zorder=0.5)
        total = sum(counts.values())
        shown = f"{kind}: step {steps[0]:,g}"
        if total > 1:
            shown = f"{kind}: {total:,g}×, from step {steps[0]:,g} on"
        axes[0].annotate(
            shown,
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(0, above),
            textcoords="offset points",
            color=color,
            fontsize=8,
            ha="right",
            va="bottom",
        )
        above += 11.0


def _runs(steps: Sequence[float], seen: set[float]) -> list[tuple[float, float, int]]:
    """Return first and last of events with none but events between, and how many."""
    place = {step: i for i, step in enumerate(sorted(seen))}
    runs: list[list[float]] = []
    for step in steps:
        if runs and place[step] == place[runs[-1][-1]] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return [(run[0], run[-1], len(run)) for run in runs]


def _events(
    found: Mapping[str, Series], kind: str
) -> tuple[dict[float, float], set[float]]:
    """Return how often updates were skipped, or not finite, up to which steps.

    Returns:
      Counts by step, and all steps of which it is known.
    """
    counts: dict[float, float] = {}
    seen: set[float] = set()
    for name, (steps, values) in found.items():
        parsed = parse(name)
        if parsed.group or parsed.leaf:
            continue
        if _EVENTS.get(parsed.metric, ("",))[0] == kind:
            rises = np.maximum(np.diff(values, prepend=0.0), 0)
        elif kind == "not finite" and parsed.metric in _FOUND:
            rises = values > 0
        elif kind == "not finite" and parsed.metric in ("loss", "gradient_norm"):
            rises = ~np.isfinite(values)
        else:
            continue
        seen.update(steps.tolist())
        for step, rise in zip(steps.tolist(), rises.tolist(), strict=True):
            if rise > 0:
                counts[step] = max(counts.get(step, 0), float(rise))
    return counts, seen


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(list(names)[:6])
    return (
        f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "no names"
    )
